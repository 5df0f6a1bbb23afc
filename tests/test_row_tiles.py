"""Tiles of arrays of rows, in kernels interpreted on a CPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

from relvit_jax.models import row_tiles


def kernel(size, x, line, column, out, lines, columns):
  """Adds to each number that of its column, and of its row."""
  program, column_of_tiles = pl.program_id(0), pl.program_id(1)

  def one(i, summed):
    index = program * size.tiles + i, column_of_tiles
    tile = row_tiles.Tile(size, x.shape, index)
    value = tile.load(x) + tile.load_columns(line)[None]
    value += tile.load_rows(column, x.shape[0] // column.shape[0])[:, None]
    tile.store(out, value)
    tile.store_rows(columns, tile.row_numbers)
    return summed + jnp.sum(tile.load(x), axis=0)

  start = jnp.zeros((size.columns,))
  summed = jax.lax.fori_loop(0, size.tiles, one, start)
  tile = row_tiles.Tile(size, x.shape, (program, column_of_tiles))
  tile.store_columns(lines, program, summed)


@pytest.mark.parametrize(
  "size",
  [
    row_tiles.Size(4, 8, 1),  # Whole tiles.
    row_tiles.Size(2, 4, 1, 3),
    row_tiles.Size(8, 8, 1),  # Some rows are not there,
    row_tiles.Size(4, 16, 1),  # some columns,
    row_tiles.Size(8, 16, 1, 2),  # and both, and whole tiles.
  ],
)
def test_every_number_is_read_and_written_once(size):
  x = jnp.arange(96.0).reshape(12, 8)
  line, column = 100 * jnp.arange(8.0), 1000 * jnp.arange(3.0)
  programs = size.programs(12)
  out, lines, rows = pl.pallas_call(
    functools.partial(kernel, size),
    grid=(programs, pl.cdiv(8, size.columns)),
    out_shape=(
      jax.ShapeDtypeStruct(x.shape, jnp.float32),
      jax.ShapeDtypeStruct((programs, 8), jnp.float32),
      jax.ShapeDtypeStruct((12,), jnp.float32),
    ),
    interpret=True,
    compiler_params=size.params(),
  )(x, line, column)
  np.testing.assert_array_equal(
    out, x + line[None] + jnp.repeat(column, 4)[:, None]
  )
  np.testing.assert_array_equal(rows, np.arange(12))
  np.testing.assert_array_equal(lines.sum(axis=0), x.sum(axis=0))


def test_programs_reach_the_last_row():
  assert row_tiles.Size(8, 8, 1, 2).programs(16) == 1
  assert row_tiles.Size(8, 8, 1, 2).programs(17) == 2


def test_a_jax_without_triton_has_no_kernels(monkeypatch):
  assert row_tiles.obstacle() == ""
  monkeypatch.setattr(row_tiles, "plgpu", None)
  assert row_tiles.obstacle().endswith("has no Triton")
