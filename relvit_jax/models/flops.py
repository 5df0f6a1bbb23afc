"""What a model costs, by formula: its matrix products; imports no JAX.

A product of [m, k] and [k, n] is 2·m·k·n floating-point operations, a multiply
and an add each. Training adds one product of the same cost for the gradient of
each of the two factors, so that a step costs three times the forward pass:
less for images and fixed arrays, whose gradients nobody needs. Elementwise
work, normalisations, softmax, losses and the optimiser are not counted, nor is
what is done once for a whole batch: Swin's position biases.

Swin's attention is linear in the tokens (Liu et al., 2021, eq. 2), a performer
linear too (Choromanski et al., 2021); all else follows from the modules, and
the tests hold it against the programs that XLA compiles.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from relvit_jax.models import stages, variants


@dataclasses.dataclass(frozen=True)
class Flops:
  """Operations in matrix products, of the forward and the backward pass."""

  forward: int = 0
  backward: int = 0

  @property
  def training(self) -> int:
    """Both passes."""
    return self.forward + self.backward

  def __add__(self, other: Flops) -> Flops:
    return Flops(self.forward + other.forward, self.backward + other.backward)

  def __mul__(self, times: int) -> Flops:
    return Flops(self.forward * times, self.backward * times)


class Cost(NamedTuple):
  """What an image costs and what it becomes.

  Attributes:
    backbone: operations of the backbone.
    heads: operations of each head, by task.
    tokens: how many the blocks see, the class token included; in Swin those of
      the first stage.
    grid_size: (rows, columns) of the patches that the pair heads see.
  """

  backbone: Flops
  heads: dict[str, Flops]
  tokens: int
  grid_size: tuple[int, int]

  @property
  def total(self) -> Flops:
    """Of backbone and heads."""
    return sum(self.heads.values(), start=self.backbone)


class _Backbone(NamedTuple):
  flops: Flops
  tokens: int
  grid_size: tuple[int, int]
  width: int
  num_features: int


# Of an image, that L_drloc is asked about: the default of its code.
NUM_PAIRS = 64


def per_image(
  backbone: str,
  image_size: int | tuple[int, int],
  patch_size: int | None = None,
  tasks: Sequence[str] = ("relation", "position"),
  num_classes: int | None = None,
  **sizes: Any,
) -> Cost:
  """Operations for one image of the model that `create_model` would make.

  Args:
    backbone: a variant or a family.
    image_size: pixels, one number for square images or (height, width).
    patch_size: pixels; None for T2T-ViT, which has none.
    tasks: those with a head.
    num_classes: needed by the label task.
    **sizes: override the variant's; those without a product change nothing.
      The class token is one of them, cls_token=False leaves it out.

  Raises:
    ValueError: there is no such backbone or task. Whether the sizes fit each
      other is for `create_model` to say.
  """
  if isinstance(image_size, int):
    image_size = (image_size, image_size)
  made = {"vit": _vit, "swin": _swin, "t2t_vit": _t2t_vit}[
    variants.family_of(backbone)
  ](image_size, patch_size, **(variants.sizes_of(backbone) | sizes))
  rows, columns = made.grid_size
  heads = {}
  for task in tasks:
    if task == "label":
      heads[task] = _label(made.num_features, num_classes)
    elif task == "drloc":
      heads[task] = drloc_head(made.width, made.grid_size, NUM_PAIRS)
    else:
      heads[task] = pair_head(task, rows * columns, made.width)
  return Cost(made.flops, heads, made.tokens, made.grid_size)


def product(*lengths: int, gradients: int = 2) -> Flops:
  """A product whose axes, summed over or not, are this long.

  Args:
    *lengths: m, k and n, and those of a batch of products.
    gradients: how many of its two factors need a gradient.
  """
  forward = 2 * math.prod(lengths)
  return Flops(forward, forward * gradients)


def pair_head(task: str, num_patches: int, width: int) -> Flops:
  """The head of a task that asks about all patches.

  Nine relations share the width as far as nine divides it.

  Raises:
    ValueError: there is no such task.
  """
  if task == "position":
    return product(num_patches, width, num_patches)
  scores = {"relation": 9, "distance": 1, "angle": 1}
  if task not in scores:
    raise ValueError(
      f"task={task!r} has no pair head; there are position, {', '.join(scores)}"
    )
  inner = width // scores[task] * scores[task]
  query_and_key = product(num_patches, width, inner) * 2
  return query_and_key + product(num_patches, num_patches, inner)


def drloc_head(
  width: int,
  grid_size: tuple[int, int],
  num_pairs: int,
  mode: str = "l1",
  use_abs: bool = True,
  *,
  hidden_dim: int = 512,
) -> Flops:
  """`heads.DenseRelativeLocalisation` of so many pairs an image."""
  last = 2 if mode == "l1" else hidden_dim
  widths = (2 * width, hidden_dim, hidden_dim, last)
  flops = Flops()
  for before, after in itertools.pairwise(widths):
    flops += product(num_pairs, before, after)
  if mode != "l1":
    longest = max(grid_size)
    classes = longest if use_abs else 2 * longest - 1
    flops += product(num_pairs, last, classes) * 2
  return flops


def _label(num_features: int, num_classes: int | None) -> Flops:
  if num_classes is None:
    raise ValueError("num_classes=None must be given for the label task")
  return product(num_features, num_classes)


def _block(tokens: int, seen: int, width: int, mlp_ratio: float) -> Flops:
  """A transformer block, whose every token attends to `seen` tokens."""
  linear = product(tokens, width, 4 * width)  # qkv and the projection
  mlp = product(tokens, width, int(width * mlp_ratio)) * 2
  return linear + mlp + product(tokens, seen, width) * 2


def _vit(
  image_size: tuple[int, int],
  patch_size: int | None,
  *,
  embed_dim: int,
  depth: int,
  mlp_ratio: float = 4.0,
  cls_token: bool = True,
  **others: Any,
) -> _Backbone:
  del others  # They have no product.
  assert patch_size is not None
  rows, columns = (length // patch_size for length in image_size)
  patches = rows * columns
  tokens = patches + cls_token
  flops = product(patches, 3 * patch_size**2, embed_dim, gradients=1)
  flops += _block(tokens, tokens, embed_dim, mlp_ratio) * depth
  features = embed_dim if cls_token else patches * embed_dim
  return _Backbone(flops, tokens, (rows, columns), embed_dim, features)


def _swin(
  image_size: tuple[int, int],
  patch_size: int | None,
  *,
  embed_dim: int,
  depth: Sequence[int],
  window_size: int,
  mlp_ratio: float = 4.0,
  **others: Any,
) -> _Backbone:
  del others
  assert patch_size is not None
  rows, columns = (length // patch_size for length in image_size)
  first, width = rows * columns, embed_dim
  flops = product(first, 3 * patch_size**2, embed_dim, gradients=1)
  for stage, blocks in enumerate(depth):
    if stage:  # Four tokens merge to one of twice the width.
      rows, columns = rows // 2, columns // 2
      flops += product(rows * columns, 4 * width, 2 * width)
      width *= 2
    # Windows shrink to a grid that is smaller.
    seen = min(window_size, rows, columns) ** 2
    flops += _block(rows * columns, seen, width, mlp_ratio) * blocks
  return _Backbone(flops, first, (rows, columns), width, width)


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
) -> _Backbone:
  del patch_size, others
  (rows, columns), width = image_size, 3
  flops = Flops()
  for i, (side, stride) in enumerate(stages.SOFT_SPLITS):
    rows, columns = rows // stride, columns // stride
    sizes = rows * columns, side**2 * width
    if i + 1 < len(stages.SOFT_SPLITS):
      flops += _between_splits(*sizes, token_dim, tokens_type)
      width = token_dim
    else:
      flops += product(*sizes, embed_dim)
  tokens = rows * columns + cls_token
  flops += _block(tokens, tokens, embed_dim, mlp_ratio) * depth
  grid_size = (rows + 1) // 2, (columns + 1) // 2  # Pooled for the heads.
  features = embed_dim if cls_token else math.prod(grid_size) * embed_dim
  return _Backbone(flops, tokens, grid_size, embed_dim, features)


def _between_splits(
  tokens: int, in_features: int, dim: int, tokens_type: str
) -> Flops:
  """Attention of one head and an MLP as wide as the tokens.

  The first has the pixels before it, but with a LayerNorm between, whose scale
  needs a gradient; so no gradient is left out.
  """
  projections = product(tokens, in_features, 3 * dim)
  projections += product(tokens, dim, dim) * 3
  if tokens_type == "transformer":
    return projections + product(tokens, tokens, dim) * 2
  return projections + performer(tokens, dim)


def performer(tokens: int, dim: int) -> Flops:
  """Attention by half as many random features as a token is wide."""
  features = dim // 2
  # Those of keys and of queries; what they are multiplied with is fixed.
  drawn = product(tokens, dim, features, gradients=1) * 2
  mixed = product(tokens, features, dim) * 2 + product(tokens, features)
  return drawn + mixed
