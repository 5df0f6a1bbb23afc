"""What a model costs, by formula: its matrix products; imports no JAX.

A product of [m, k] and [k, n] is 2·m·k·n floating-point operations, a multiply
and an add each. Training adds one product of the same cost for the gradient of
each of the two factors, so that a step costs three times the forward pass:
less for images and fixed arrays, whose gradients nobody needs. Elementwise
work, normalisations, softmax, losses and the optimiser are not counted. The
products are those of `traffic.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from relvit_jax.models import kernels, traffic


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
  made = traffic.per_step(
    backbone, image_size, patch_size, tasks, num_classes, **sizes
  )
  heads = {task: total(found) for task, found in made.heads.items()}
  return Cost(total(made.backbone), heads, made.tokens, made.grid_size)


def total(found: Iterable[kernels.Kernel]) -> Flops:
  """Of all these kernels."""
  sums = [0, 0]
  for kernel in found:
    sums[kernel.backward] += kernel.flops
  return Flops(*sums)
