"""What one program of the GPU's attention kernel does: a head of an image.

Triton's arrays have powers of two for lengths. Of a grid of 8×8 patches with
its class token the first 64 tokens make such an array, the tile; the last one
is taken by itself, by sums. 50 tokens are a tile of 64 of which some are 0.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array

try:
  from jax.experimental.pallas import triton as plgpu
except ImportError:  # Deprecated since JAX 0.11; 0.12 still has it.
  plgpu: Any = None

# The fewest rows and columns of a product of the matrix units.
LEAST = 16


class Cut(NamedTuple):
  """How the tokens of an image are taken.

  Attributes:
    size: of the array that most of them make.
    present: how many of it there are; the others are 0.
    alone: whether one more follows.
  """

  size: int
  present: int
  alone: bool


def cut(length: int) -> Cut:
  """Of 65 tokens 64 and 1; of 50 an array of 64."""
  above = max(LEAST, 1 << (length - 1).bit_length())
  if length - 1 == above // 2 >= LEAST:
    return Cut(length - 1, length - 1, True)
  return Cut(above, length, False)


class _Head:
  """One head of one image: all that a program reads, read at once.

  A program waits for memory as often as it begins to read anew, and few fit on
  a multiprocessor to fill the gaps.

  Args:
    qkv, bias: as of `attention_triton.attend`.
    length: tokens of an image.
    num_heads: of all columns.
    gradient: of the result, for the backward pass.

  Attributes:
    query, key, value, gradient: of the tile.
    last: of the token that is alone the same four, in float32.
    scale: of the scores, before the softmax.
  """

  def __init__(
    self,
    qkv: Any,
    bias: Any,
    length: int,
    num_heads: int,
    gradient: Any = None,
  ):
    self._dim = qkv.shape[1] // 3
    self._width = self._dim // num_heads
    self._first = pl.program_id(0) * length
    self.scale = self._width**-0.5
    self.cut = cut(length)
    self._there = jnp.arange(self.cut.size) < self.cut.present
    parts = range(3)
    tiles = [self._load(qkv, part) for part in parts]
    self.gradient: Any = None
    if gradient is not None:
      self.gradient = self._load(gradient, 0)
    lasts, last_gradient = [], None
    if self.cut.alone:
      lasts = [plgpu.load(self._last(qkv, part)) for part in parts]
      if gradient is not None:
        last_gradient = plgpu.load(self._last(gradient, 0)).astype(jnp.float32)
    biases = [plgpu.load(bias.at[self._columns(part)]) for part in parts]
    self.query, self.key, self.value = (
      tile + own[None] for tile, own in zip(tiles, biases, strict=True)
    )
    self.last = _Last(
      *(
        (last + own).astype(jnp.float32)
        for last, own in zip(lasts, biases, strict=False)
      ),
      gradient=last_gradient,
    )

  def store(self, rows: Any, part: int, value: Array) -> None:
    place, there = self._tile(rows, part)
    plgpu.store(place, value.astype(rows.dtype), mask=there)

  def store_last(self, rows: Any, part: int, value: Array) -> None:
    plgpu.store(self._last(rows, part), value.astype(rows.dtype))

  def _load(self, rows: Any, part: int) -> Array:
    """Of the tile; 0 where there is no token."""
    place, there = self._tile(rows, part)
    return plgpu.load(place, mask=there, other=None if there is None else 0.0)

  def _tile(self, rows: Any, part: int) -> tuple[Any, Any]:
    """(where it lies, which of its rows there are)."""
    size = self.cut.size
    place = rows.at[pl.ds(self._first, size), self._columns(part)]
    if self.cut.present == size:
      return place, None
    return place, jnp.broadcast_to(self._there[:, None], (size, self._width))

  def _last(self, rows: Any, part: int) -> Any:
    return rows.at[self._first + self.cut.size, self._columns(part)]

  def _columns(self, part: int) -> Any:
    first = part * self._dim + pl.program_id(1) * self._width
    return pl.ds(first, self._width)

  def weights(self) -> tuple[Array, Any]:
    """Of each token for all in the tile, and for the last if it is alone."""
    scores = plgpu.dot(self.query, self.key, trans_b=True) * self._factor
    if self.cut.present < self.cut.size:
      scores = jnp.where(self._there[None], scores, -jnp.inf)
    highest = jnp.max(scores, axis=1)
    if not self.cut.alone:
      powers = jnp.exp2(scores - highest[:, None])
      return powers * (1 / jnp.sum(powers, axis=1))[:, None], None
    other = _dots(self.query, self.last.key) * self._factor
    highest = jnp.maximum(highest, other)
    powers = jnp.exp2(scores - highest[:, None])
    other = jnp.exp2(other - highest)
    factor = 1 / (jnp.sum(powers, axis=1) + other)
    return powers * factor[:, None], other * factor

  def weights_of_last(self) -> tuple[Array, Array]:
    """Of the last token for all in the tile, and for itself."""
    scores = _dots(self.key, self.last.query) * self._factor
    own = jnp.sum(self.last.query * self.last.key) * self._factor
    highest = jnp.maximum(jnp.max(scores), own)
    powers, own = jnp.exp2(scores - highest), jnp.exp2(own - highest)
    factor = 1 / (jnp.sum(powers) + own)
    return powers * factor, own * factor

  @property
  def _factor(self) -> float:
    """For powers of 2, which a GPU has, where a softmax has those of e."""
    return self.scale * math.log2(math.e)


class _Last(NamedTuple):
  """Rows of the token that is alone; None where no one is."""

  query: Any = None
  key: Any = None
  value: Any = None
  gradient: Any = None


def _dots(rows: Array, row: Array) -> Array:
  """The product of each row with one, in float32."""
  return jnp.sum(rows.astype(jnp.float32) * row[None], axis=1)


def _mix(weights: Array, rows: Array) -> Array:
  """The rows' sum, each times its weight, in float32."""
  return jnp.sum(weights[:, None] * rows.astype(jnp.float32), axis=0)


def _mix_by_product(weights: Array, rows: Array) -> Array:
  """The same by the matrix units, as one column of the fewest they take.

  On an H200 the backward pass is a sixth faster by it, the forward pass a tenth
  slower, and `_dots` in this way slow down both.
  """
  first = jnp.arange(LEAST)[None] == 0
  columns = jnp.where(first, weights[:, None], 0.0)
  return jnp.sum(_turned(rows, columns.astype(rows.dtype)), axis=1)


def forward(
  qkv: Any, bias: Any, out: Any, *, length: int, num_heads: int
) -> None:
  """The mixed values of the head's tokens."""
  head = _Head(qkv, bias, length, num_heads)
  weights, other = head.weights()
  made = _product(weights, head.value)
  if not head.cut.alone:
    head.store(out, 0, made)
    return
  value = head.last.value
  below, own = head.weights_of_last()
  head.store(out, 0, made + other[:, None] * value[None])
  head.store_last(out, 0, _mix(below, head.value) + own * value)


def backward(
  qkv: Any, bias: Any, gradient: Any, out: Any, *, length: int, num_heads: int
) -> None:
  """The gradients of queries, keys and values, from that of the result."""
  head = _Head(qkv, bias, length, num_heads, gradient)
  if head.cut.alone:
    _backward_with_last(head, out)
    return
  weights, _ = head.weights()
  head.store(out, 2, _turned(weights, head.gradient))
  to_weights = plgpu.dot(head.gradient, head.value, trans_b=True)
  mean = jnp.sum(weights * to_weights, axis=1)
  to_scores = weights * (to_weights - mean[:, None]) * head.scale
  head.store(out, 0, _product(to_scores, head.key))
  head.store(out, 1, _turned(to_scores, head.query))


def _backward_with_last(head: _Head, out: Any) -> None:
  """The same, with one row and one column more of all scores.

  `below` is that row, what the last token gives to those of the tile, and
  `beside` the column, what they give to it; `own` is what it gives to itself.
  """
  last = head.last
  weights, beside = head.weights()
  below, own = head.weights_of_last()
  made = _turned(weights, head.gradient)
  head.store(out, 2, made + below[:, None] * last.gradient[None])
  made = _mix_by_product(beside, head.gradient)
  head.store_last(out, 2, made + own * last.gradient)

  to_weights = plgpu.dot(head.gradient, head.value, trans_b=True)
  to_beside = _dots(head.gradient, last.value)
  mean = jnp.sum(weights * to_weights, axis=1) + beside * to_beside
  to_scores = weights * (to_weights - mean[:, None]) * head.scale
  to_beside = beside * (to_beside - mean) * head.scale

  to_below = _dots(head.value, last.gradient)
  to_own = jnp.sum(last.value * last.gradient)
  mean = jnp.sum(below * to_below) + own * to_own
  to_below = below * (to_below - mean) * head.scale
  to_own = own * (to_own - mean) * head.scale

  made = _product(to_scores, head.key)
  head.store(out, 0, made + to_beside[:, None] * last.key[None])
  made = _mix_by_product(to_below, head.key)
  head.store_last(out, 0, made + to_own * last.key)
  made = _turned(to_scores, head.query)
  head.store(out, 1, made + to_below[:, None] * last.query[None])
  made = _mix_by_product(to_beside, head.query)
  head.store_last(out, 1, made + to_own * last.query)


def _product(left: Array, right: Array) -> Array:
  return plgpu.dot(left.astype(right.dtype), right)


def _turned(left: Array, right: Array) -> Array:
  """leftᵀ · right."""
  return plgpu.dot(left.astype(right.dtype), right, trans_a=True)
