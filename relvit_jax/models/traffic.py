"""The kernels of a training step of each backbone and head.

What counts as one is said in `kernels.py`; their products are those of
`flops.py`. Imports no JAX.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from relvit_jax.models import flops, kernels, stages, variants
from relvit_jax.models.kernels import Kernel


class Kernels(NamedTuple):
  """Those of a step; the optimiser's are not among them."""

  backbone: list[Kernel]
  heads: list[Kernel]


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
  sizes = variants.sizes_of(backbone) | sizes
  make = {"vit": _vit, "swin": _swin, "t2t_vit": _t2t_vit}[
    variants.family_of(backbone)
  ]
  made = list(make((height, width), patch_size, **sizes))
  cost = flops.per_image(
    backbone, (height, width), patch_size, tasks, num_classes, **sizes
  )
  rows, columns = cost.grid_size
  patches, dim = rows * columns, _last_width(sizes)
  heads: list[Kernel] = []
  for task in tasks:
    if task in ("label", "drloc"):
      # Too small to be worth more than their products.
      product = cost.heads[task]
      heads.append(Kernel(task, product.forward, 0))
      heads.append(Kernel(f"{task}, gradient", product.backward, 0, 0, True))
    elif task == "position":
      heads += kernels.linear(task, patches, dim, patches)
      heads += kernels.loss(task, patches**2)
    else:
      heads += _pairs(task, patches, dim)
  return Kernels(made, heads)


def _last_width(sizes: dict[str, Any]) -> int:
  """Of the tokens that the heads see: each stage doubles it."""
  depth = sizes["depth"]
  merged = len(depth) - 1 if isinstance(depth, (tuple, list)) else 0
  return sizes["embed_dim"] * 2**merged


def _pairs(task: str, patches: int, width: int) -> Iterator[Kernel]:
  scores = 9 if task == "relation" else 1
  inner = width // scores * scores
  for name in ("query", "key"):
    yield from kernels.linear(f"{task} {name}", patches, width, inner)
  operations = 2 * patches**2 * inner
  moved = 2 * patches * inner + scores * patches**2
  yield Kernel(f"{task} scores", operations, moved)
  for name in ("query", "key"):
    yield Kernel(
      f"{task} scores, gradient of {name}", operations, moved, 0, True
    )
  yield from kernels.loss(task, scores * patches**2)


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
  yield from kernels.elementwise("norm1", tokens * in_features)
  yield from kernels.linear("qkv", tokens, in_features, 3 * dim)
  if tokens_type == "transformer":
    mixed = flops.product(tokens, tokens, dim) * 2
  else:
    mixed = flops.performer(tokens, dim)
  yield from kernels.attention(tokens, dim, mixed.forward, mixed.backward)
  yield from kernels.linear("proj", tokens, dim, dim, skip=True)
  yield from kernels.elementwise("norm2", tokens * dim, backward=4)
  yield from kernels.mlp(tokens, dim, dim)
