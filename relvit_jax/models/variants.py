"""Backbones by name and the sizes that a name stands for; starts no JAX."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

# What RelViT learns, and beside it dense relative localisation (L_drloc), which
# is asked about some pairs of an image, and answers only those.
TASKS = ("relation", "distance", "angle", "position", "label")
ALL_TASKS = (*TASKS, "drloc")
# What L_drloc predicts, how a ViT knows places, and which tokens attend to
# others than themselves: none, or the class token alone.
DRLOC_MODES = ("l1", "ce", "cbr")
POS_EMBED_TYPES = ("learned", "sinusoidal")
ATTENTION_MASKS = ("diagonal", "diagonal_cls_row")
ATTENTIONS = ("einsum", "products", "kernel", "triton", "xla", "cudnn")


def _swin(
  embed_dim: int, depth: tuple[int, ...], num_heads: tuple[int, ...]
) -> dict[str, Any]:
  """Depth and heads have a number for each stage, windows the paper's size."""
  return {
    "embed_dim": embed_dim,
    "depth": depth,
    "num_heads": num_heads,
    "window_size": 7,
  }


SIZES: dict[str, dict[str, Any]] = {
  "vit_tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
  "vit_small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
  "vit_base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
  # The sizes of the ViT that Lee et al. (2021), "Vision Transformer for
  # Small-Size Datasets", compare with: aanna0701/SPT_LSA_ViT. Its initial
  # weights (Xavier) and LayerNorm epsilon (1e-5) are others.
  "vit_lee": {
    "embed_dim": 192,
    "depth": 9,
    "num_heads": 12,
    "mlp_ratio": 2.0,
    "qkv_bias": False,
  },
  "swin_tiny": _swin(96, (2, 2, 6, 2), (3, 6, 12, 24)),
  "swin_small": _swin(96, (2, 2, 18, 2), (3, 6, 12, 24)),
  "swin_base": _swin(128, (2, 2, 18, 2), (4, 8, 16, 32)),
  **{
    f"t2t_vit_{name}": {
      "embed_dim": width,
      "depth": depth,
      "num_heads": width // 64,
      "mlp_ratio": ratio,
      "tokens_type": tokens_type,
    }
    for name, width, depth, ratio, tokens_type in (
      ("7", 256, 7, 2.0, "performer"),
      ("10", 256, 10, 2.0, "performer"),
      ("12", 256, 12, 2.0, "performer"),
      ("14", 384, 14, 3.0, "performer"),
      ("19", 448, 19, 3.0, "performer"),
      ("24", 512, 24, 3.0, "performer"),
      ("t_14", 384, 14, 3.0, "transformer"),
      ("t_19", 448, 19, 3.0, "transformer"),
      ("t_24", 512, 24, 3.0, "transformer"),
    )
  },
}


class Family(NamedTuple):
  """What the backbones of a family have in common.

  Attributes:
    variant: the one that the paper uses, which the family's name stands for.
    positive: sizes that are numbers above 0.
    per_stage: sizes that have a whole number for each stage.
    rates: shares from 0 to 1.
    switches: what is True or False.
    words: sizes that are none of these.
    has_patch_size: whether there is a choice of patches.
    has_cls_token: whether there is a choice of a class token.
  """

  variant: str
  positive: tuple[str, ...] = ("embed_dim", "depth", "num_heads", "mlp_ratio")
  per_stage: tuple[str, ...] = ()
  rates: tuple[str, ...] = (
    "dropout_rate",
    "attention_dropout_rate",
    "drop_path_rate",
  )
  switches: tuple[str, ...] = ()
  words: tuple[str, ...] = ()
  has_patch_size: bool = True
  has_cls_token: bool = True

  @property
  def names(self) -> tuple[str, ...]:
    """All sizes."""
    return (
      self.positive + self.per_stage + self.switches + self.words + self.rates
    )


FAMILIES = {
  "vit": Family(
    "vit_small",
    switches=("qkv_bias", "recompute_gelu", "block_kernels", "scan_layers"),
    words=("pos_embed_type", "attention_mask", "attention"),
  ),
  "swin": Family(
    "swin_tiny",
    positive=("embed_dim", "window_size", "mlp_ratio"),
    per_stage=("depth", "num_heads"),
    switches=("recompute_gelu", "block_kernels"),
    has_cls_token=False,
  ),
  "t2t_vit": Family(
    "t2t_vit_14",
    positive=("embed_dim", "depth", "num_heads", "mlp_ratio", "token_dim"),
    rates=(
      "dropout_rate",
      "attention_dropout_rate",
      "drop_path_rate",
      "token_dropout_rate",
    ),
    switches=("recompute_gelu", "block_kernels", "scan_layers"),
    words=("tokens_type", "attention"),
    has_patch_size=False,
  ),
}


def sizes_of(backbone: str) -> dict[str, Any]:
  """The sizes of a variant or of a family's own one.

  Raises:
    ValueError: there is no such backbone, with the names that there are.
  """
  family = FAMILIES.get(backbone)
  variant = family.variant if family else backbone
  if variant not in SIZES:
    raise ValueError(
      f"backbone={backbone!r} does not exist; there are "
      f"{', '.join([*FAMILIES, *SIZES])}"
    )
  return SIZES[variant]


def complete(backbone: str, given: Mapping[str, Any]) -> dict[str, Any]:
  """The sizes of a variant, some of them overridden.

  What has a number for each stage may be given as depths or as depth.

  Raises:
    ValueError: a size that the family does not have, or that cannot be.
  """
  family = family_of(backbone)
  given = dict(given)
  if "depth" in FAMILIES[family].per_stage and "depths" in given:
    if "depth" in given:
      raise ValueError(
        f"depths={given['depths']!r} and depth={given['depth']!r} are the same "
        "size; one must be left out"
      )
    given["depth"] = given.pop("depths")
  for name, value in given.items():
    _check_size(family, name, value)
  return sizes_of(backbone) | given


def _is(value: Any, kind: type) -> bool:
  """Of NumPy's numbers too, which the types of `numbers` cannot compare."""
  return isinstance(value, kind)


def _check_size(family: str, name: str, value: Any) -> None:
  known = FAMILIES[family]
  is_number = _is(value, numbers.Real)
  if name in known.positive:
    if not is_number or value <= 0:
      raise ValueError(f"{name}={value!r} must be a positive number")
  elif name in known.per_stage:
    if not isinstance(value, (tuple, list)) or not all(
      _is(number, numbers.Integral) and number > 0 for number in value
    ):
      raise ValueError(
        f"{name}={value!r} must be whole numbers above 0, one a stage, such "
        "as (2, 2, 6, 2)"
      )
  elif name in known.rates:
    if not is_number or not 0 <= value < 1:
      raise ValueError(f"{name}={value!r} must be in [0, 1)")
  elif name in known.switches:
    if not isinstance(value, bool):
      raise ValueError(f"{name}={value!r} must be True or False")
  elif name not in known.words:  # The family checks their values.
    raise ValueError(
      f"{name}={value!r} is no size of a {family}; there are "
      f"{', '.join(known.names)}"
    )


def family_of(backbone: str) -> str:
  """The family that a variant or family's name belongs to: swin of swin_tiny.

  Raises:
    ValueError: as `sizes_of`.
  """
  sizes_of(backbone)
  return next(family for family in FAMILIES if backbone.startswith(family))


def shown_patch(
  backbone: str, patch_size: int | None, depth: Any = None
) -> int:
  """Pixels a side of a patch that the heads see.

  Args:
    backbone: a name as of `sizes_of`.
    patch_size: of a ViT, or of Swin's first stage, whose mergings double it;
      a T2T-ViT has none, and its heads' patches are those of 32 pixels.
    depth: of Swin, blocks of each stage; None for the variant's.
  """
  if not FAMILIES[family_of(backbone)].has_patch_size:
    return 32
  assert patch_size is not None
  depth = depth or sizes_of(backbone)["depth"]
  merged = len(depth) - 1 if isinstance(depth, (tuple, list)) else 0
  return patch_size * 2**merged
