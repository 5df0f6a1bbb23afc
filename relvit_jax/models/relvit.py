"""A backbone and the heads of its tasks; `create_model` makes both by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from relvit_jax import grid
from relvit_jax.models import heads, layers, swin, t2t_vit, variants, vit
from relvit_jax.models.variants import ALL_TASKS, DRLOC_MODES

Backbone = vit.ViT | swin.Swin
BACKBONES = {"vit": vit.ViT, "swin": swin.Swin, "t2t_vit": t2t_vit.T2TViT}

PAIR_SCORES = {"relation": len(grid.RELATIONS), "distance": 1, "angle": 1}
# Tasks whose heads begin with linear layers of the same patches.
_READ_PATCHES = (*PAIR_SCORES, "position")


class RelViT(nnx.Module):
  """Images → one output a task.

  Attributes:
    backbone: images → Tokens, with `grid_size`, `embed_dim`, `num_features`
      and `features`.
    heads: one head a task, under the task's name.
    cls_to_patches: whether the class token is added to the patches that the
      relation, distance, angle and position heads see.
  """

  def __init__(
    self,
    backbone: Backbone,
    tasks: Sequence[str],
    *,
    num_classes: int | None = None,
    drloc_mode: str = "l1",
    drloc_abs: bool = True,
    cls_to_patches: bool = False,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    _check_tasks(tasks, num_classes, drloc_mode)
    self.backbone = backbone
    self.cls_to_patches = cls_to_patches
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
      elif task == "drloc":
        made[task] = heads.DenseRelativeLocalisation(
          dim,
          backbone.grid_size,
          drloc_mode,
          drloc_abs,
          dtype=dtype,
          rngs=rngs,
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
    pairs: tuple[Int[Array, "B m 2"], Int[Array, "B m 2"]] | None = None,
    dense: bool = True,
  ) -> dict[str, Any]:
    """Outputs by task.

    Args:
      images: normalised images.
      train: whether dropout and drop-path act; they then draw from `rngs`.
      rngs: random streams; `nnx.Rngs(dropout=key)` is enough.
      pairs: (row, column) of the first and of the second patch of m pairs an
        image, for the drloc task. Without them that task has no output.
      dense: whether relation, distance and angle are scores of all N² pairs.
        False gives `heads.Projections` instead, from which
        `pair_blocks.PairBlocks` takes losses without those arrays.

    Returns:
      relation [B,9,N,N], distance [B,N,N], angle [B,N,N], position [B,N,N]
      (token, place), label [B,C] and drloc, [B·m,2] or scores [B·m,K,2] of K
      differences; those of the model's tasks, float32.

    Raises:
      ValueError: there are pairs and no head for them.
    """
    if pairs is not None and "drloc" not in self.heads:
      raise ValueError(
        "pairs are for the drloc task, which is not among the model's tasks "
        f"{', '.join(self.heads)}"
      )
    tokens = self.backbone(images, train=train, rngs=rngs)
    return self._outputs(tokens, pairs, dense)

  @jax.named_scope("heads")
  def _outputs(
    self,
    tokens: layers.Tokens,
    pairs: tuple[Int[Array, "B m 2"], Int[Array, "B m 2"]] | None,
    dense: bool,
  ) -> dict[str, Any]:
    patches = tokens.patches
    if self.cls_to_patches:
      assert tokens.cls is not None
      patches = patches + tokens.cls[:, None]
    linears = [
      linear
      for task, head in self.heads.items()
      if task in _READ_PATCHES
      for linear in head.linears
    ]
    made = iter(layers.side_by_side(linears, patches) if linears else [])
    outputs: dict[str, Any] = {}
    for task, head in self.heads.items():
      if task in PAIR_SCORES:
        asked = head.split(next(made), next(made))
        outputs[task] = _scores(task, asked) if dense else asked
      elif task == "position":
        outputs[task] = head.scores(next(made))
      elif task == "label":
        outputs[task] = head(self.backbone.features(tokens))
      elif pairs is not None:
        outputs[task] = head(tokens.local, *pairs)
    return outputs


def _scores(
  task: str, asked: heads.Projections
) -> Float[Array, "B R N N"] | Float[Array, "B N N"]:
  scores = heads.pair_scores(*asked)
  return scores if PAIR_SCORES[task] > 1 else scores[:, 0]


def create_model(
  backbone: str = "vit",
  *,
  image_size: Any,
  patch_size: int | None = None,
  tasks: Sequence[str] = ("relation", "position"),
  num_classes: int | None = None,
  pos_embed: bool = True,
  cls_token: bool = True,
  cls_to_patches: bool = False,
  drloc_mode: str = "l1",
  drloc_abs: bool = True,
  dtype: Any = None,
  rngs: nnx.Rngs,
  **sizes: Any,
) -> RelViT:
  """Makes a model by name, with random weights.

  Args:
    backbone: "vit_tiny", _small, _base or _lee; "swin_tiny", _small or _base;
      "t2t_vit_7", _10, _12, _14, _19 or _24, and, with softmax attention
      between the splits, "t2t_vit_t_14", _19 or _24. "vit", "swin" and
      "t2t_vit" are the paper's: vit_small, swin_tiny and t2t_vit_14.
    image_size: pixels, one whole number for square images or (height, width).
    patch_size: pixels; it must divide the image size. With Swin it is that of
      the first stage, 4 in the paper; the heads see patches of 8 times that.
      T2T-ViT has none: its images divide by 16, and its heads see a patch for
      every 32 pixels.
    tasks: which of relation, distance, angle, position, label and drloc to
      build a head for. None is built that is not asked for, so nothing decays
      unused.
    num_classes: needed by the label task.
    pos_embed: whether tokens get positional embeddings: learned ones, the
      sinusoids of T2T-ViT, or in Swin a learned bias for each offset between
      two tokens. With them the position and relation tasks can be solved
      without looking at the image, unless patches are permuted; Swin's bias
      gives away less. T2T-ViT's first tokens see the zeros around the image,
      which gives places away even without. The official Swin and T2T-ViT
      always have theirs.
    cls_token: whether there is a class token; without it the label head reads
      the flattened patch tokens. Swin has none in any case: its label head
      reads the average of the tokens.
    cls_to_patches: whether the relation, distance, angle and position heads
      see the sum of a patch and the class token. The official code can do so
      for a ViT; its T2T-ViT then forgets to pool the patches, ours does not.
    drloc_mode, drloc_abs: what the drloc task predicts: `mode` and `use_abs`
      of `heads.DenseRelativeLocalisation`.
    dtype: what to compute in; None for float32. Parameters, softmax and
      outputs are float32 in any case.
    rngs: source of the initial weights, `nnx.Rngs(seed)`.
    **sizes: override the variant's: embed_dim, depth, num_heads, mlp_ratio,
      dropout_rate, attention_dropout_rate, drop_path_rate. Of Swin, depths and
      num_heads have a number for each stage, and there is window_size. T2T-ViT
      has token_dim, tokens_type ("performer" or "transformer") and
      token_dropout_rate too; ViT has qkv_bias, pos_embed_type ("learned" or
      "sinusoidal") and attention_mask, which `vit.ViT` explains.

  Raises:
    ValueError: a name, size or combination does not exist or does not fit.
  """
  family = variants.family_of(backbone)
  sizes = variants.complete(backbone, sizes) | {"pos_embed": pos_embed}
  if variants.FAMILIES[family].has_cls_token:
    sizes["cls_token"] = cls_token
  if cls_to_patches and not sizes.get("cls_token"):
    raise ValueError(
      f"cls_to_patches=True: this {family} has no class token to add; "
      "cls_token=True gives one to a vit or t2t_vit"
    )
  return RelViT(
    BACKBONES[family](
      _image_size(image_size),
      **_patch_size(backbone, family, patch_size),
      dtype=dtype,
      rngs=rngs,
      **sizes,
    ),
    tasks,
    num_classes=num_classes,
    drloc_mode=drloc_mode,
    drloc_abs=drloc_abs,
    cls_to_patches=cls_to_patches,
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
  if not variants.FAMILIES[family].has_patch_size:
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


def _check_tasks(
  tasks: Sequence[str], num_classes: int | None, drloc_mode: str
) -> None:
  for task in tasks:
    if task not in ALL_TASKS:
      raise ValueError(
        f"tasks={tuple(tasks)!r} names {task!r}; there are "
        f"{', '.join(ALL_TASKS)}"
      )
  if not tasks or len(set(tasks)) < len(tasks):
    raise ValueError(
      f"tasks={tuple(tasks)!r} must name at least one task, each once"
    )
  if "label" in tasks and (num_classes is None or num_classes < 1):
    raise ValueError(
      f"num_classes={num_classes} must be at least 1 for the label task"
    )
  if drloc_mode not in DRLOC_MODES:
    raise ValueError(
      f"drloc_mode={drloc_mode!r} does not exist; there are "
      f"{', '.join(DRLOC_MODES)}"
    )
