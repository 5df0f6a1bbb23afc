"""Attention within the windows of a grid: what a Swin transformer is made of.

T stands for the tokens of a window, W for the windows of a grid, both in
reading order. The tables are NumPy constants: nothing here is learned but
projections and biases.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Shaped

from relvit_jax import grid
from relvit_jax.models import layers, norms

Grid = tuple[int, int]

# What the official code adds to scores that must not count.
MASKED = -100.0


def partition(
  x: Shaped[grid.Arrays, "B N D"], grid_size: Grid, window: int
) -> Shaped[grid.Arrays, "B W T D"]:
  """Cuts a grid of tokens into windows of window × window tokens."""
  batch, _, dim = x.shape
  rows, columns = (length // window for length in grid_size)
  x = x.reshape(batch, rows, window, columns, window, dim)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(batch, rows * columns, window**2, dim)


def join(
  x: Shaped[grid.Arrays, "B W T D"], grid_size: Grid, window: int
) -> Shaped[grid.Arrays, "B N D"]:
  """Puts windows together again: undoes `partition`."""
  batch, _, _, dim = x.shape
  rows, columns = (length // window for length in grid_size)
  x = x.reshape(batch, rows, columns, window, window, dim)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(batch, grid_size[0] * grid_size[1], dim)


def roll(
  x: Float[Array, "B N D"], grid_size: Grid, shift: int
) -> Float[Array, "B N D"]:
  """Moves tokens down and right by `shift`, and round the grid's edges."""
  if not shift:
    return x
  there = x.reshape(len(x), *grid_size, -1)
  return jnp.roll(there, (shift, shift), axis=(1, 2)).reshape(x.shape)


@functools.cache
def token_order(
  grid_size: Grid, window: int, shift: int
) -> Int[np.ndarray, "W T"]:
  """Which token of the grid stands where in the shifted windows."""
  rows, columns = grid_size
  numbers = np.arange(rows * columns).reshape(grid_size)
  numbers = np.roll(numbers, (-shift, -shift), axis=(0, 1))
  return partition(numbers.reshape(1, -1, 1), grid_size, window)[0, :, :, 0]


@functools.cache
def shift_mask(
  grid_size: Grid, window: int, shift: int
) -> Float[np.ndarray, "W T T"]:
  """0 for tokens that meet in the image, MASKED for those round its edge.

  A shift of the grid brings tokens from its upper and left edges into the
  windows at its lower and right ones.
  """
  columns = grid_size[1]
  row, column = np.divmod(token_order(grid_size, window, shift), columns)
  wrapped = 2 * (row < shift) + (column < shift)
  apart = wrapped[:, :, None] != wrapped[:, None, :]
  return np.where(apart, np.float32(MASKED), np.float32(0))


def pair_biases(
  table: Float[Array, "offsets heads"], window: int
) -> Float[Array, "heads T T"]:
  """The bias of every ordered pair of tokens of a window.

  Args:
    table: for each offset of (rows, columns) between two tokens, from
      (1 - window, 1 - window) to (window - 1, window - 1) in reading order.
    window: tokens a side.

  Returns:
    At [i, j] what the table has for the place of i minus that of j.
  """
  offsets = 2 * window - 1
  chosen = _offset_choice(window)
  # Products with 0 and 1 and not a gather: the gradient of a gather adds in
  # no fixed order on a GPU.
  biases = jnp.einsum(
    "rsa,pqb,abh->hrpsq",
    chosen,
    chosen,
    table.reshape(offsets, offsets, -1),
    precision=jax.lax.Precision.HIGHEST,
  )
  return biases.reshape(-1, window**2, window**2)


@functools.cache
def _offset_choice(window: int) -> Float[np.ndarray, "w w offsets"]:
  """1 at [i, j, i - j + window - 1], else 0."""
  place = np.arange(window)
  offset = place[:, None] - place[None, :] + window - 1
  return np.eye(2 * window - 1, dtype=np.float32)[offset]


class WindowAttention(nnx.Module):
  """Self-attention within each window of a grid, shifted or not.

  Attributes:
    relative_position_bias_table: what is added to the score of two tokens for
      the offset between them, or None; its name is the official one.
  """

  def __init__(
    self,
    dim: int,
    num_heads: int,
    grid_size: Grid,
    window: int,
    shift: int,
    *,
    relative_bias: bool = True,
    dropout_rate: float = 0.0,
    attention_dropout_rate: float = 0.0,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    self.num_heads = num_heads
    self.grid_size = grid_size
    self.window = window
    self.shift = shift
    init = layers.TRANSFORMER_INIT
    self.relative_position_bias_table = (
      nnx.Param(init(rngs.params(), ((2 * window - 1) ** 2, num_heads)))
      if relative_bias
      else None
    )
    self.qkv = layers.linear(dim, 3 * dim, dtype=dtype, rngs=rngs)
    self.proj = layers.linear(dim, dim, dtype=dtype, rngs=rngs)
    self.attention_dropout = nnx.Dropout(attention_dropout_rate)
    self.dropout = nnx.Dropout(dropout_rate)

  @jax.named_scope("attention")
  def __call__(
    self,
    x: Float[Array, "B N D"],
    *,
    norm: nnx.LayerNorm | None = None,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> Float[Array, "B N D"]:
    """What each token takes from its window, as of `attention.Attention`."""
    query, key, value = self._project(x, norm)
    weights = self._attend(query, key).astype(value.dtype)
    weights = self.attention_dropout(
      weights, deterministic=not train, rngs=rngs
    )
    mixed = jnp.einsum("bwhij,bwjhd->bwihd", weights, value)
    mixed = self.proj(mixed.reshape(*mixed.shape[:3], -1))
    mixed = join(mixed, self.grid_size, self.window)
    mixed = roll(mixed, self.grid_size, self.shift)
    return self.dropout(mixed, deterministic=not train, rngs=rngs)

  def weights(self, x: Float[Array, "B N D"]) -> Float[Array, "B heads N N"]:
    """How much token i takes from token j: 0 outside its window."""
    query, key, _ = self._project(x)
    within = self._attend(query, key).transpose(0, 2, 1, 3, 4)
    order = token_order(self.grid_size, self.window, self.shift)
    batch, length, _ = x.shape
    everywhere = jnp.zeros((batch, self.num_heads, length, length))
    return everywhere.at[:, :, order[:, :, None], order[:, None, :]].set(within)

  def _project(
    self, x: Float[Array, "B N D"], norm: nnx.LayerNorm | None = None
  ) -> tuple[Array, Array, Array]:
    """Query, key and value, each [B, W, T, heads, D / heads]."""
    x = roll(x, self.grid_size, -self.shift)
    x = partition(x, self.grid_size, self.window)
    qkv, bias = norms.unbiased(self.qkv, layers.rows(x), norm)
    qkv = (qkv + bias[None]).reshape(*x.shape[:3], 3, self.num_heads, -1)
    return qkv[..., 0, :, :], qkv[..., 1, :, :], qkv[..., 2, :, :]

  def _attend(
    self,
    query: Float[Array, "B W T heads d"],
    key: Float[Array, "B W T heads d"],
  ) -> Float[Array, "B W heads T T"]:
    scores = jnp.einsum(
      "bwihd,bwjhd->bwhij", query, key, preferred_element_type=jnp.float32
    )
    scores = scores * query.shape[-1] ** -0.5
    if self.relative_position_bias_table is not None:
      table = self.relative_position_bias_table[...]
      scores = scores + pair_biases(table, self.window)[None, None]
    if self.shift:
      mask = shift_mask(self.grid_size, self.window, self.shift)
      scores = scores + mask[None, :, None]
    return jax.nn.softmax(scores, axis=-1)
