"""The kernels of a training step of each backbone and head.

What counts as one is said in `kernels.py`. Swin's attention is linear in the
tokens (Liu et al., 2021, eq. 2); all else follows from the modules, and the
tests hold the products against the programs that XLA compiles. Swin's position
biases are not there, which are made once for a whole batch. Imports no JAX.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from relvit_jax.models import head_kernels, kernels, stages, variants
from relvit_jax.models.kernels import Kernel


class Kernels(NamedTuple):
  """Those of a step, and what an image becomes; the optimiser's are not here.

  Attributes:
    backbone: one after the other.
    heads: by task.
    tokens: how many the blocks see, the class token included; in Swin those of
      the first stage.
    grid_size: (rows, columns) of the patches that the pair heads see.
  """

  backbone: list[Kernel]
  heads: dict[str, list[Kernel]]
  tokens: int
  grid_size: stages.Grid


def per_step(
  backbone: str,
  image_size: int | tuple[int, int],
  patch_size: int | None = None,
  tasks: Sequence[str] = ("relation", "position"),
  num_classes: int | None = None,
  **sizes: Any,
) -> Kernels:
  """The kernels of a training step; arguments as of `flops.per_image`."""
  height, width = (
    (image_size, image_size) if isinstance(image_size, int) else image_size
  )
  family = variants.family_of(backbone)
  make = {"vit": _vit, "swin": _swin, "t2t_vit": _t2t_vit}[family]
  measure = {"vit": _of_vit, "swin": _of_swin, "t2t_vit": _of_t2t_vit}[family]
  sizes = variants.sizes_of(backbone) | sizes
  made = measure((height, width), patch_size, **sizes)
  return Kernels(
    list(make((height, width), patch_size, **sizes)),
    {task: list(head_kernels.of(task, made, num_classes)) for task in tasks},
    made.tokens,
    made.grid_size,
  )


def _of_vit(
  image_size: tuple[int, int],
  patch_size: int | None,
  *,
  embed_dim: int,
  cls_token: bool = True,
  **others: Any,
) -> head_kernels.Made:
  del others
  assert patch_size is not None
  rows, columns = (length // patch_size for length in image_size)
  patches = rows * columns
  features = embed_dim if cls_token else patches * embed_dim
  return head_kernels.Made(
    patches + cls_token, (rows, columns), embed_dim, features
  )


def _vit(
  image_size: tuple[int, int],
  patch_size: int | None,
  *,
  embed_dim: int,
  depth: int,
  mlp_ratio: float = 4.0,
  cls_token: bool = True,
  **others: Any,
) -> Iterator[Kernel]:
  del others
  assert patch_size is not None
  patches = image_size[0] // patch_size * (image_size[1] // patch_size)
  pixels = 3 * patch_size**2
  yield from kernels.linear(
    "embedding", patches, pixels, embed_dim, gradients=1
  )
  tokens = patches + cls_token
  for _ in range(depth):
    yield from kernels.block(tokens, tokens, embed_dim, mlp_ratio)
  yield from kernels.elementwise("norm", tokens * embed_dim)


def _of_swin(
  image_size: tuple[int, int],
  patch_size: int | None,
  *,
  embed_dim: int,
  depth: Sequence[int],
  **others: Any,
) -> head_kernels.Made:
  del others
  assert patch_size is not None
  grids = stages.stage_grids(image_size, patch_size, len(depth))
  # Each stage doubles the width.
  width = embed_dim * 2 ** (len(depth) - 1)
  return head_kernels.Made(grids[0][0] * grids[0][1], grids[-1], width, width)


def _swin(
  image_size: tuple[int, int],
  patch_size: int | None,
  *,
  embed_dim: int,
  depth: Sequence[int],
  window_size: int,
  mlp_ratio: float = 4.0,
  **others: Any,
) -> Iterator[Kernel]:
  del others
  assert patch_size is not None
  grids = stages.stage_grids(image_size, patch_size, len(depth))
  width = embed_dim
  pixels = 3 * patch_size**2
  tokens = grids[0][0] * grids[0][1]
  yield from kernels.linear("embedding", tokens, pixels, width, gradients=1)
  yield from kernels.elementwise("norm", tokens * width)
  for stage, ((rows, columns), blocks) in enumerate(
    zip(grids, depth, strict=True)
  ):
    tokens = rows * columns
    if stage:
      yield from kernels.elementwise("merging norm", tokens * 4 * width)
      yield from kernels.linear("merging", tokens, 4 * width, 2 * width)
      width *= 2
    seen = min(window_size, rows, columns) ** 2
    for _ in range(blocks):
      yield from kernels.block(tokens, seen, width, mlp_ratio)
  yield from kernels.elementwise("norm", tokens * width)


def _of_t2t_vit(
  image_size: tuple[int, int],
  patch_size: int | None,
  *,
  embed_dim: int,
  cls_token: bool = True,
  **others: Any,
) -> head_kernels.Made:
  del patch_size, others
  rows, columns = image_size
  for _, stride in stages.SOFT_SPLITS:
    rows, columns = rows // stride, columns // stride
  # Pooled for the heads.
  grid_size = (rows + 1) // 2, (columns + 1) // 2
  patches = grid_size[0] * grid_size[1]
  features = embed_dim if cls_token else patches * embed_dim
  return head_kernels.Made(
    rows * columns + cls_token, grid_size, embed_dim, features
  )


def _t2t_vit(
  image_size: tuple[int, int],
  patch_size: int | None,
  *,
  embed_dim: int,
  depth: int,
  mlp_ratio: float = 3.0,
  token_dim: int = 64,
  tokens_type: str = "performer",
  cls_token: bool = True,
  **others: Any,
) -> Iterator[Kernel]:
  del patch_size, others
  (rows, columns), width = image_size, 3
  for side, stride in stages.SOFT_SPLITS[:-1]:
    before = rows * columns * width
    rows, columns = rows // stride, columns // stride
    tokens, windows = rows * columns, side**2 * width
    yield from _split(before, tokens * windows, images=width == 3)
    yield from _between_splits(tokens, windows, token_dim, tokens_type)
    width = token_dim
  side, stride = stages.SOFT_SPLITS[-1]
  before = rows * columns * width
  rows, columns = rows // stride, columns // stride
  tokens, windows = rows * columns, side**2 * width
  yield from _split(before, tokens * windows)
  yield from kernels.linear("project", tokens, windows, embed_dim)
  seen = tokens + cls_token
  for _ in range(depth):
    yield from kernels.block(seen, seen, embed_dim, mlp_ratio)
  yield from kernels.elementwise("norm", seen * embed_dim)
  pooled = (rows + 1) // 2 * ((columns + 1) // 2)
  yield from _split(tokens * embed_dim, pooled * embed_dim)


def _split(before: int, after: int, images: bool = False) -> Iterator[Kernel]:
  """Overlapping windows; those of the images have no gradient."""
  yield Kernel("windows", 0, before + after)
  if not images:
    yield Kernel("windows, gradient", 0, before + after, 0, True)


def _between_splits(
  tokens: int, in_features: int, dim: int, tokens_type: str
) -> Iterator[Kernel]:
  """Attention of one head and an MLP as wide as the tokens.

  The first has the pixels before it, but with a LayerNorm between, whose scale
  needs a gradient; so no gradient is left out.
  """
  yield from kernels.elementwise("norm1", tokens * in_features)
  yield from kernels.linear("qkv", tokens, in_features, 3 * dim)
  forward, backward = (
    (4 * tokens**2 * dim, 8 * tokens**2 * dim)
    if tokens_type == "transformer"
    else _performer(tokens, dim)
  )
  yield from kernels.attention(tokens, dim, forward, backward)
  yield from kernels.linear("proj", tokens, dim, dim, skip=True)
  yield from kernels.elementwise("norm2", tokens * dim, backward=4)
  yield from kernels.mlp(tokens, dim, dim)


def _performer(tokens: int, dim: int) -> tuple[int, int]:
  """(forward, backward) of attention by dim / 2 random features a token.

  Linear in the tokens (Choromanski et al., 2021).
  """
  features = dim // 2
  # Those of keys and of queries; what they are multiplied with is fixed.
  drawn = 2 * (2 * tokens * dim * features)
  mixed = 2 * (2 * tokens * features * dim) + 2 * tokens * features
  return drawn + mixed, drawn + 2 * mixed
