"""What a step must at least compute and move: its kernels, one by one.

A device cannot finish a kernel before it has done its matrix products, nor
before it has read its inputs and written its outputs once. The sum over all
kernels of the longer of the two bounds the speed of a step, and tells more
than the peak rate does: between the products of a narrow transformer there is
much that only moves data. Imports no JAX.

What is one kernel: a product, with its bias, and with the skip connection that
is added to it; a LayerNorm, whose gradient adds that of the skip; a GELU; all
of softmax or performer attention, whose scores never leave the chip; a loss.
Dropout, shifts and windows are not counted. An implementation that fuses more,
such as GELU into its products, may pass this bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Kernel(NamedTuple):
  """One pass over data.

  Attributes:
    name: what it computes.
    flops: operations in matrix products, of an image.
    elements: numbers read and written, of an image.
    weights: the same, of a batch of whatever size.
    backward: whether it belongs to the backward pass.
  """

  name: str
  flops: int
  elements: int
  weights: int = 0
  backward: bool = False


def seconds(
  kernels: Sequence[Kernel],
  batch: int,
  rate: float | int,
  bandwidth: float | int,
  element_bytes: int,
) -> float | int:
  """The least time for a batch.

  Args:
    kernels: one after the other.
    batch: images.
    rate: operations a second in matrix products.
    bandwidth: bytes a second, read and written.
    element_bytes: 4 in float32, 2 in bfloat16.
  """
  return sum(
    max(
      kernel.flops * batch / rate,
      moved_bytes([kernel], batch, element_bytes) / bandwidth,
    )
    for kernel in kernels
  )


def moved_bytes(
  kernels: Sequence[Kernel], batch: int, element_bytes: int
) -> int:
  """Bytes read and written for a batch."""
  return element_bytes * sum(
    kernel.elements * batch + kernel.weights for kernel in kernels
  )


def optimizer_bytes(parameters: int) -> int:
  """Bytes that AdamW moves in float32.

  Parameters and two moments are read and written, gradients read.
  """
  return 7 * 4 * parameters


def product(name: str, *lengths: int, gradients: int = 2) -> Iterator[Kernel]:
  """A product too small for its numbers to count.

  Args:
    name: what it computes.
    *lengths: of its axes, summed over or not, and those of a batch of products.
    gradients: how many of its two factors need a gradient.
  """
  operations = 2 * math.prod(lengths)
  yield Kernel(name, operations, 0)
  yield Kernel(f"{name}, gradients", gradients * operations, 0, 0, True)


def linear(
  name: str,
  tokens: int,
  inputs: int,
  outputs: int,
  *,
  skip: bool = False,
  gradients: int = 2,
) -> Iterator[Kernel]:
  """A product with weights, and those for its gradients."""
  operations = 2 * tokens * inputs * outputs
  moved, weights = tokens * (inputs + outputs), inputs * outputs
  yield Kernel(name, operations, moved + skip * tokens * outputs, weights)
  what = ("weights", "input")[:gradients]
  for of in what:
    yield Kernel(
      f"{name}, gradient of its {of}", operations, moved, weights, True
    )


def elementwise(
  name: str, elements: int, forward: int = 2, backward: int = 3
) -> Iterator[Kernel]:
  """The gradient of most reads the input and what comes back."""
  yield Kernel(name, 0, forward * elements)
  yield Kernel(f"{name}, gradient", 0, backward * elements, 0, True)


def attention(
  tokens: int, width: int, forward: int, backward: int
) -> Iterator[Kernel]:
  """Query, key and value in, their mixture out; and all of them for gradients.

  Args:
    forward: operations; `backward` likewise.
  """
  yield Kernel("attention", forward, 4 * tokens * width)
  yield Kernel("attention, gradient", backward, 8 * tokens * width, 0, True)


def mlp(tokens: int, width: int, hidden: int) -> Iterator[Kernel]:
  yield from linear("fc1", tokens, width, hidden)
  yield from elementwise("GELU", tokens * hidden)
  yield from linear("fc2", tokens, hidden, width, skip=True)


def block(
  tokens: int, seen: int, width: int, mlp_ratio: float
) -> Iterator[Kernel]:
  """A pre-norm block, whose every token attends to `seen` tokens."""
  yield from elementwise("norm1", tokens * width, backward=4)
  yield from linear("qkv", tokens, width, 3 * width)
  forward = 4 * tokens * seen * width
  yield from attention(tokens, width, forward, 2 * forward)
  yield from linear("proj", tokens, width, width, skip=True)
  yield from elementwise("norm2", tokens * width, backward=4)
  yield from mlp(tokens, width, int(width * mlp_ratio))


def loss(task: str, scores: int) -> Iterator[Kernel]:
  """Reads the scores; writes their gradient."""
  yield from elementwise(f"{task} loss", scores, forward=1, backward=2)
