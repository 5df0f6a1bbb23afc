"""Arrays of rows, a tile at a time, in kernels by Pallas' Triton.

Triton's arrays have powers of two for lengths: a tile may reach beyond the last
row or column, and what is not there reads as 0 and is not written.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array

from relvit_jax.models.attention_tile import plgpu


def obstacle() -> str:
  """Why there are no such kernels; empty where there are."""
  return "" if plgpu else f"JAX {jax.__version__} has no Triton"


class Size(NamedTuple):
  """What a program of the grid takes.

  Attributes:
    rows, columns: of a tile.
    warps: of 32 threads, which share a tile.
    tiles: below each other, which it takes in turn.
  """

  rows: int
  columns: int
  warps: int
  tiles: int = 1

  def programs(self, length: int) -> int:
    """As many as it takes for all rows."""
    return pl.cdiv(length, self.rows * self.tiles)

  def params(self) -> Any:
    return plgpu.CompilerParams(num_warps=self.warps, num_stages=1)


class Tile:
  """Some rows and columns of arrays of M rows.

  Args:
    size: of it.
    shape: rows M and columns of the arrays.
    index: of all tiles, by rows and columns; both as the program knows them
      when it runs, as JAX 0.12 refuses a tile that it sees reach too far.
  """

  def __init__(self, size: Size, shape: tuple[int, ...], index: tuple):
    self._rows = pl.ds(index[0] * size.rows, size.rows)
    self._columns = pl.ds(index[1] * size.columns, size.columns)
    self._length = shape[0]
    own = index[0] * size.rows + jnp.arange(size.rows)
    columns = index[1] * size.columns + jnp.arange(size.columns)
    self.row_numbers = own
    # Of what is whole no program asks whether it is there.
    self._has_rows = None
    if shape[0] % (size.rows * size.tiles):
      self._has_rows = own < shape[0]
    self._has_columns = None
    if shape[1] % size.columns:
      self._has_columns = columns < shape[1]
    self._size = size

  def load(self, rows: Any) -> Array:
    """Of [M, F], in float32."""
    return _load(rows.at[self._rows, self._columns], self._there())

  def store(self, rows: Any, value: Array) -> None:
    place = rows.at[self._rows, self._columns]
    plgpu.store(place, value.astype(rows.dtype), mask=self._there())

  def load_columns(self, line: Any) -> Array:
    """Of [F]."""
    return _load(line.at[self._columns], self._has_columns)

  def store_columns(self, lines: Any, line: Any, value: Array) -> None:
    """Into one line of [_, F]."""
    place = lines.at[line, self._columns]
    plgpu.store(place, value.astype(lines.dtype), mask=self._has_columns)

  def load_rows(self, column: Any, each: int = 1) -> Array:
    """Of [M / each], of which one number serves as many rows."""
    return _load(column.at[self.row_numbers // each], self._has_rows)

  def store_rows(self, column: Any, value: Array) -> None:
    """Into [M]."""
    place = column.at[self._rows]
    plgpu.store(place, value.astype(column.dtype), mask=self._has_rows)

  def _there(self) -> Array | None:
    shape = self._size.rows, self._size.columns
    columns = self._has_columns
    if self._has_rows is None:
      return None if columns is None else jnp.broadcast_to(columns[None], shape)
    rows = jnp.broadcast_to(self._has_rows[:, None], shape)
    return rows if columns is None else rows & columns[None]


def _load(place: Any, there: Array | None) -> Array:
  other = None if there is None else 0.0
  return plgpu.load(place, mask=there, other=other).astype(jnp.float32)
