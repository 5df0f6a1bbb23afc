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
    count: how many of it there are; the others are 0.
    alone: whether one more follows.
  """

  size: int
  count: int
  alone: bool


def cut(length: int) -> Cut:
  """Of 65 tokens 64 and 1; of 50 an array of 64."""
  above = max(LEAST, 1 << (length - 1).bit_length())
  if length - 1 == above // 2 >= LEAST:
    return Cut(length - 1, length - 1, True)
  return Cut(above, length, False)


class _Place:
  """Where a program finds its own: one head of one image."""

  def __init__(self, dim: int, length: int, num_heads: int):
    self.image, self.head = pl.program_id(0), pl.program_id(1)
    self.dim, self.length = dim, length
    self.width = dim // num_heads
    self.scale = self.width**-0.5
    self.cut = cut(length)
    self.there = jnp.arange(self.cut.size) < self.cut.count

  def columns(self, part: int) -> Any:
    return pl.ds(part * self.dim + self.head * self.width, self.width)

  def tile(self, rows: Any, part: int) -> tuple[Any, Any]:
    """(most of its rows, which of them there are)."""
    size = self.cut.size
    place = rows.at[pl.ds(self.image * self.length, size), self.columns(part)]
    if self.cut.count == size:
      return place, None
    return place, jnp.broadcast_to(self.there[:, None], (size, self.width))

  def load(self, rows: Any, part: int = 0, bias: Any = 0) -> Array:
    place, mask = self.tile(rows, part)
    return bias + plgpu.load(
      place, mask=mask, other=None if mask is None else 0.0
    )

  def load_last(self, rows: Any, part: int = 0, bias: Any = 0) -> Array:
    row = self.image * self.length + self.length - 1
    return (bias + plgpu.load(rows.at[row, self.columns(part)])).astype(
      jnp.float32
    )

  def store(self, rows: Any, part: int, value: Array) -> None:
    place, mask = self.tile(rows, part)
    plgpu.store(place, value.astype(rows.dtype), mask=mask)

  def store_last(self, rows: Any, part: int, value: Array) -> None:
    row = self.image * self.length + self.length - 1
    plgpu.store(rows.at[row, self.columns(part)], value.astype(rows.dtype))

  def weights(self, query: Array, key: Array, last: Any) -> tuple[Array, Any]:
    """Of each token for all in the tile, and for the last one if it is alone.

    Args:
      query, key: of the tile.
      last: the key of the last token, or None.
    """
    scores = plgpu.dot(query, key, trans_b=True) * self.scale
    if self.cut.count < self.cut.size:
      scores = jnp.where(self.there[None], scores, -jnp.inf)
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
  place = _Place(out.shape[1], length, num_heads)

  def load(part: int) -> Array:
    own = plgpu.load(bias.at[place.columns(part)])
    return place.load(qkv, part, own[None])

  def last(part: int) -> Array:
    own = plgpu.load(bias.at[place.columns(part)])
    return place.load_last(qkv, part, own)

  if not place.cut.alone:
    weights, _ = place.weights(load(0), load(1), None)
    place.store(out, 0, _product(weights, load(2)))
    return
  weights, own = place.weights_of_last(last(0), load(1), last(1))
  place.store_last(out, 0, _mix(weights, load(2)) + own * last(2))
  weights, other = place.weights(load(0), load(1), last(1))
  made = _product(weights, load(2)) + other[:, None] * last(2)[None]
  place.store(out, 0, made)


def backward(
  qkv: Any,
  bias: Any,
  gradient: Any,
  out: Any,
  *,
  length: int,
  num_heads: int,
) -> None:
  """In stages, each of which reads again what it needs.

  Kept in registers from stage to stage, in float32 too, the tiles would leave
  room for one program on a multiprocessor, and not for all of that.
  """
  place = _Place(gradient.shape[1], length, num_heads)

  def load(part: int) -> Array:
    own = plgpu.load(bias.at[place.columns(part)])
    return place.load(qkv, part, own[None])

  def store(part: int, made: Array) -> None:
    place.store(out, part, made)

  if not place.cut.alone:
    weights, _ = place.weights(load(0), load(1), None)
    store(2, _turned(weights, place.load(gradient)))
    to_weights = plgpu.dot(place.load(gradient), load(2), trans_b=True)
    mean = jnp.sum(weights * to_weights, axis=1)
    to_scores = weights * (to_weights - mean[:, None]) * place.scale
    store(0, _product(to_scores, load(1)))
    store(1, _turned(to_scores, load(0)))
    return

  # One more row and one more column, without the matrix units.
  def last(part: int) -> Array:
    own = plgpu.load(bias.at[place.columns(part)])
    return place.load_last(qkv, part, own)

  key, value, mine_last = load(1), load(2), place.load_last(gradient)
  below, own = place.weights_of_last(last(0), key, last(1))
  to_below, to_own = _dots(value, mine_last), jnp.sum(last(2) * mine_last)
  mean = jnp.sum(below * to_below) + own * to_own
  to_below = below * (to_below - mean) * place.scale
  to_own = own * (to_own - mean) * place.scale
  place.store_last(out, 0, _mix(to_below, key) + to_own * last(1))
  weights, beside = place.weights(load(0), load(1), last(1))
  mine, mine_last = place.load(gradient), place.load_last(gradient)
  store(2, _turned(weights, mine) + below[:, None] * mine_last[None])
  place.store_last(out, 2, _mix(beside, mine) + own * mine_last)
  mine = place.load(gradient)
  to_weights = plgpu.dot(mine, load(2), trans_b=True)
  to_beside = _dots(mine, last(2))
  mean = jnp.sum(weights * to_weights, axis=1) + beside * to_beside
  to_scores = weights * (to_weights - mean[:, None]) * place.scale
  to_beside = beside * (to_beside - mean) * place.scale
  store(0, _product(to_scores, load(1)) + to_beside[:, None] * last(1)[None])
  query = load(0)
  store(1, _turned(to_scores, query) + to_below[:, None] * last(0)[None])
  place.store_last(out, 1, _mix(to_beside, query) + to_own * last(0))


def _product(left: Array, right: Array) -> Array:
  return plgpu.dot(left.astype(right.dtype), right)


def _turned(left: Array, right: Array) -> Array:
  """leftᵀ · right."""
  return plgpu.dot(left.astype(right.dtype), right, trans_a=True)
