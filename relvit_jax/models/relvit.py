"""A backbone and the heads of its tasks; `create_model` makes both by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from relvit_jax import grid
from relvit_jax.models import heads, layers, t2t_vit, variants, vit
from relvit_jax.models.variants import TASKS

BACKBONES = {"vit": vit.ViT, "t2t_vit": t2t_vit.T2TViT}

PAIR_SCORES = {"relation": len(grid.RELATIONS), "distance": 1, "angle": 1}


class RelViT(nnx.Module):
  """Images → one output a task.

  Attributes:
    backbone: images → Tokens, with `grid_size` and `embed_dim`.
    heads: one head a task, under the task's name.
  """

  def __init__(
    self,
    backbone: vit.ViT,
    tasks: Sequence[str],
    *,
    num_classes: int | None = None,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    _check_tasks(tasks, num_classes)
    self.backbone = backbone
    dim = backbone.embed_dim
    num_patches = backbone.grid_size[0] * backbone.grid_size[1]
    made: dict[str, Any] = {}
    for task in tasks:
      if task in PAIR_SCORES:
        made[task] = heads.PairwiseHead(
          dim, PAIR_SCORES[task], dtype=dtype, rngs=rngs
        )
      elif task == "position":
        made[task] = heads.PositionHead(
          dim, num_patches, dtype=dtype, rngs=rngs
        )
      else:
        assert num_classes is not None
        made[task] = heads.LabelHead(
          backbone.num_features, num_classes, dtype=dtype, rngs=rngs
        )
    self.heads = nnx.Dict(made)

  @property
  def grid_size(self) -> tuple[int, int]:
    """(rows, columns) of the patches that the pair and position heads see."""
    return self.backbone.grid_size

  def __call__(
    self,
    images: Float[Array, "B H W C"],
    *,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> dict[str, Array]:
    """Outputs by task.

    Args:
      images: normalised images.
      train: whether dropout and drop-path act; they then draw from `rngs`.
      rngs: random streams; `nnx.Rngs(dropout=key)` is enough.

    Returns:
      relation [B,9,N,N], distance [B,N,N], angle [B,N,N], position [B,N,N]
      (token, place) and label [B,C], those of the model's tasks, float32.
    """
    tokens = self.backbone(images, train=train, rngs=rngs)
    outputs = {}
    for task, head in self.heads.items():
      if task == "label":
        outputs[task] = head(self.backbone.features(tokens))
      elif task == "relation" or task == "position":
        outputs[task] = head(tokens.patches)
      else:
        outputs[task] = head(tokens.patches)[:, 0]
    return outputs


def create_model(
  backbone: str = "vit",
  *,
  image_size: Any,
  patch_size: int | None = None,
  tasks: Sequence[str] = ("relation", "position"),
  num_classes: int | None = None,
  pos_embed: bool = True,
  cls_token: bool = True,
  dtype: Any = None,
  rngs: nnx.Rngs,
  **sizes: Any,
) -> RelViT:
  """Makes a model by name, with random weights.

  Args:
    backbone: "vit_tiny", "vit_small" or "vit_base"; "vit" is the paper's, the
      small one. "t2t_vit_7", _10, _12, _14, _19 or _24, and "t2t_vit_t_14",
      _19 or _24 with softmax attention between the splits; "t2t_vit" is the
      paper's, t2t_vit_14.
    image_size: pixels, one whole number for square images or (height, width).
    patch_size: pixels; it must divide the image size. T2T-ViT has none: its
      images divide by 16, and its heads see a patch for every 32 pixels.
    tasks: which of relation, distance, angle, position and label to build a
      head for. None is built that is not asked for, so nothing decays unused.
    num_classes: needed by the label task.
    pos_embed: whether tokens get positional embeddings, learned ones or, in
      T2T-ViT, sinusoids. With them the position and relation tasks can be
      solved without looking at the image, unless patches are permuted. The
      official T2T-ViT has its sinusoids always, while pre-training too.
    cls_token: whether there is a class token; without it the label head reads
      the flattened patch tokens.
    dtype: what to compute in; None for float32. Parameters, softmax and
      outputs are float32 in any case.
    rngs: source of the initial weights, `nnx.Rngs(seed)`.
    **sizes: override the variant's: embed_dim, depth, num_heads, mlp_ratio,
      dropout_rate, attention_dropout_rate, drop_path_rate; of T2T-ViT also
      token_dim, tokens_type ("performer" or "transformer") and
      token_dropout_rate.

  Raises:
    ValueError: a name, size or combination does not exist or does not fit.
  """
  defaults = variants.sizes_of(backbone)
  family = variants.family_of(backbone)
  _check_sizes(family, sizes)
  return RelViT(
    BACKBONES[family](
      _image_size(image_size),
      **_patch_size(backbone, family, patch_size),
      pos_embed=pos_embed,
      cls_token=cls_token,
      dtype=dtype,
      rngs=rngs,
      **(defaults | sizes),
    ),
    tasks,
    num_classes=num_classes,
    dtype=dtype,
    rngs=rngs,
  )


def _image_size(given: Any) -> tuple[int, int]:
  """(height, width) of one number or of two, of any integer type."""
  sizes = np.ravel(given)
  if sizes.dtype.kind not in "iu" or len(sizes) not in (1, 2):
    raise ValueError(
      f"image_size={given!r} must be one whole number or (height, width)"
    )
  return int(sizes[0]), int(sizes[-1])


def _patch_size(
  backbone: str, family: str, given: int | None
) -> dict[str, int]:
  """The argument of a backbone that has a choice of patches."""
  if family == "t2t_vit":
    if given is not None:
      raise ValueError(
        f"patch_size={given} must not be given: {backbone} merges its patches "
        "to one for every 16 pixels"
      )
    return {}
  if given is None:
    raise ValueError(
      f"patch_size=None: {backbone} needs it, in pixels, a divisor of "
      "image_size"
    )
  return {"patch_size": given}


_POSITIVE = ("embed_dim", "depth", "num_heads", "mlp_ratio")
_RATES = ("dropout_rate", "attention_dropout_rate", "drop_path_rate")

# What only a family has.
_POSITIVE_OF = {"t2t_vit": ("token_dim",)}
_RATES_OF = {"t2t_vit": ("token_dropout_rate",)}
_NAMES_OF = {"t2t_vit": ("tokens_type",)}  # The family checks their values.


def _check_sizes(family: str, sizes: dict[str, Any]) -> None:
  positive = _POSITIVE + _POSITIVE_OF.get(family, ())
  rates = _RATES + _RATES_OF.get(family, ())
  names = _NAMES_OF.get(family, ())
  for name, value in sizes.items():
    if name in positive:
      if not isinstance(value, (int, float)) or value <= 0:
        raise ValueError(f"{name}={value!r} must be a positive number")
    elif name in rates:
      if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{name}={value!r} must be in [0, 1)")
    elif name not in names:
      raise ValueError(
        f"{name}={value!r} is no size of a {family}; there are "
        f"{', '.join(positive + names + rates)}"
      )


def _check_tasks(tasks: Sequence[str], num_classes: int | None) -> None:
  for task in tasks:
    if task not in TASKS:
      raise ValueError(
        f"tasks={tuple(tasks)!r} names {task!r}; there are {', '.join(TASKS)}"
      )
  if not tasks or len(set(tasks)) < len(tasks):
    raise ValueError(
      f"tasks={tuple(tasks)!r} must name at least one task, each once"
    )
  if "label" in tasks and (num_classes is None or num_classes < 1):
    raise ValueError(
      f"num_classes={num_classes} must be at least 1 for the label task"
    )
