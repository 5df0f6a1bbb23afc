"""What one program of the GPU's attention kernel does: a head of an image.

Triton's arrays have powers of two for lengths. Of a grid of 8×8 patches with
its class token the first 64 tokens make such an array, the tile; the last one
is taken by itself, without the matrix units. 50 tokens are a tile of 64 of
which some are 0.
"""

from __future__ import annotations

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
  """One head of one image: where a program finds what is its own.

  Args:
    qkv, bias: as of `attention_triton.attend`.
    length: tokens of an image.
    num_heads: of all columns.
  """

  def __init__(self, qkv: Any, bias: Any, length: int, num_heads: int):
    self._qkv, self._bias, self._length = qkv, bias, length
    self._dim = qkv.shape[1] // 3
    self._width = self._dim // num_heads
    self.scale = self._width**-0.5
    self.cut = cut(length)
    self._there = jnp.arange(self.cut.size) < self.cut.present

  def tile(self, part: int) -> Array:
    """Queries (0), keys (1) or values (2) of the tile."""
    return self._own_bias(part)[None] + self.load(self._qkv, part)

  def last(self, part: int) -> Array:
    """Of the token that is alone, in float32."""
    own = self._own_bias(part) + self._load_last(self._qkv, part)
    return own.astype(jnp.float32)

  def load(self, rows: Any, part: int = 0) -> Array:
    """Of the tile; 0 where there is no token."""
    place, there = self._tile(rows, part)
    return plgpu.load(place, mask=there, other=None if there is None else 0.0)

  def load_last(self, rows: Any) -> Array:
    return self._load_last(rows, 0).astype(jnp.float32)

  def store(self, rows: Any, part: int, value: Array) -> None:
    place, there = self._tile(rows, part)
    plgpu.store(place, value.astype(rows.dtype), mask=there)

  def store_last(self, rows: Any, part: int, value: Array) -> None:
    place = rows.at[self._last_row(), self._columns(part)]
    plgpu.store(place, value.astype(rows.dtype))

  def _tile(self, rows: Any, part: int) -> tuple[Any, Any]:
    """(where it lies, which of its rows there are)."""
    size, first = self.cut.size, pl.program_id(0) * self._length
    place = rows.at[pl.ds(first, size), self._columns(part)]
    if self.cut.present == size:
      return place, None
    return place, jnp.broadcast_to(self._there[:, None], (size, self._width))

  def _last_row(self) -> Any:
    return (pl.program_id(0) + 1) * self._length - 1

  def _columns(self, part: int) -> Any:
    first = part * self._dim + pl.program_id(1) * self._width
    return pl.ds(first, self._width)

  def _own_bias(self, part: int) -> Array:
    return plgpu.load(self._bias.at[self._columns(part)])

  def _load_last(self, rows: Any, part: int) -> Array:
    return plgpu.load(rows.at[self._last_row(), self._columns(part)])

  def weights(self, query: Array, key: Array, last: Any) -> tuple[Array, Any]:
    """Of each token for all in the tile, and for the last one if it is alone.

    Args:
      query, key: of the tile.
      last: the key of the last token, or None.
    """
    scores = plgpu.dot(query, key, trans_b=True) * self.scale
    if self.cut.present < self.cut.size:
      scores = jnp.where(self._there[None], scores, -jnp.inf)
    highest = jnp.max(scores, axis=1)
    if last is None:
      powers = jnp.exp(scores - highest[:, None])
      return powers * (1 / jnp.sum(powers, axis=1))[:, None], None
    other = _dots(query, last) * self.scale
    highest = jnp.maximum(highest, other)
    powers, other = jnp.exp(scores - highest[:, None]), jnp.exp(other - highest)
    factor = 1 / (jnp.sum(powers, axis=1) + other)
    return powers * factor[:, None], other * factor

  def weights_of_last(
    self, query: Array, key: Array, last: Array
  ) -> tuple[Array, Array]:
    """Of the last token for all in the tile, and for itself."""
    scores = _dots(key, query) * self.scale
    own = jnp.sum(query * last) * self.scale
    highest = jnp.maximum(jnp.max(scores), own)
    powers, own = jnp.exp(scores - highest), jnp.exp(own - highest)
    factor = 1 / (jnp.sum(powers) + own)
    return powers * factor, own * factor


def _dots(rows: Array, row: Array) -> Array:
  """The product of each row with one, in float32."""
  return jnp.sum(rows.astype(jnp.float32) * row[None], axis=1)


def _mix(weights: Array, rows: Array) -> Array:
  """The rows' sum, each times its weight, in float32."""
  return jnp.sum(weights[:, None] * rows.astype(jnp.float32), axis=0)


def forward(
  qkv: Any, bias: Any, out: Any, *, length: int, num_heads: int
) -> None:
  """The mixed values of the head's tokens."""
  head = _Head(qkv, bias, length, num_heads)
  if not head.cut.alone:
    weights, _ = head.weights(head.tile(0), head.tile(1), None)
    head.store(out, 0, _product(weights, head.tile(2)))
    return
  weights, own = head.weights_of_last(head.last(0), head.tile(1), head.last(1))
  made = _mix(weights, head.tile(2)) + own * head.last(2)
  head.store_last(out, 0, made)
  weights, other = head.weights(head.tile(0), head.tile(1), head.last(1))
  made = _product(weights, head.tile(2)) + other[:, None] * head.last(2)[None]
  head.store(out, 0, made)


def backward(
  qkv: Any, bias: Any, gradient: Any, out: Any, *, length: int, num_heads: int
) -> None:
  """The gradients of queries, keys and values, from that of the result.

  In stages, each of which reads again what it needs: kept in registers from
  one to the next, in float32 too, the tiles would not leave room for that of
  another program on the same multiprocessor.
  """
  head = _Head(qkv, bias, length, num_heads)
  if head.cut.alone:
    _backward_with_last(head, gradient, out)
    return
  weights, _ = head.weights(head.tile(0), head.tile(1), None)
  head.store(out, 2, _turned(weights, head.load(gradient)))
  to_weights = plgpu.dot(head.load(gradient), head.tile(2), trans_b=True)
  mean = jnp.sum(weights * to_weights, axis=1)
  to_scores = weights * (to_weights - mean[:, None]) * head.scale
  head.store(out, 0, _product(to_scores, head.tile(1)))
  head.store(out, 1, _turned(to_scores, head.tile(0)))


def _backward_with_last(head: _Head, gradient: Any, out: Any) -> None:
  """The same, with one row and one column more of all scores.

  `below` is that row, what the last token gives to those of the tile, and
  `beside` the column, what they give to it; `own` is what it gives to itself.
  """
  key, value, mine_last = head.tile(1), head.tile(2), head.load_last(gradient)
  below, own = head.weights_of_last(head.last(0), key, head.last(1))
  to_below, to_own = _dots(value, mine_last), jnp.sum(head.last(2) * mine_last)
  mean = jnp.sum(below * to_below) + own * to_own
  to_below = below * (to_below - mean) * head.scale
  to_own = own * (to_own - mean) * head.scale
  head.store_last(out, 0, _mix(to_below, key) + to_own * head.last(1))

  weights, beside = head.weights(head.tile(0), head.tile(1), head.last(1))
  mine, mine_last = head.load(gradient), head.load_last(gradient)
  made = _turned(weights, mine) + below[:, None] * mine_last[None]
  head.store(out, 2, made)
  head.store_last(out, 2, _mix(beside, mine) + own * mine_last)

  mine = head.load(gradient)
  to_weights = plgpu.dot(mine, head.tile(2), trans_b=True)
  to_beside = _dots(mine, head.last(2))
  mean = jnp.sum(weights * to_weights, axis=1) + beside * to_beside
  to_scores = weights * (to_weights - mean[:, None]) * head.scale
  to_beside = beside * (to_beside - mean) * head.scale
  made = _product(to_scores, head.tile(1))
  head.store(out, 0, made + to_beside[:, None] * head.last(1)[None])

  query = head.tile(0)
  made = _turned(to_scores, query) + to_below[:, None] * head.last(0)[None]
  head.store(out, 1, made)
  head.store_last(out, 1, _mix(to_beside, query) + to_own * head.last(0))


def _product(left: Array, right: Array) -> Array:
  return plgpu.dot(left.astype(right.dtype), right)


def _turned(left: Array, right: Array) -> Array:
  """leftᵀ · right."""
  return plgpu.dot(left.astype(right.dtype), right, trans_a=True)
