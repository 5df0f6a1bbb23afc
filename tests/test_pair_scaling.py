"""Costs of pair losses, on grids small enough to run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax.analysis import pair_scaling
from relvit_jax.analysis.pair_scaling import Row
from relvit_jax.models import heads
from relvit_jax.training import pair_blocks


def test_memory_grows_with_pairs_or_with_patches():
  small, large = pair_scaling.measure(
    (64, 1024), width=16, rows=8, tasks=("angle",), repeats=1, limit=2**22
  )
  assert (small.num_patches, large.num_patches) == (64, 1024)
  # 16 times the patches are 256 times the pairs, and an array of all has 4 MiB.
  assert large.dense_bytes > 100 * small.dense_bytes
  assert large.dense_bytes > 2**22 > 8 * large.blockwise_bytes
  assert small.dense_seconds is not None
  assert small.dense_seconds > 0
  assert large.dense_seconds is None
  assert large.blockwise_seconds > 0


@pytest.mark.parametrize(
  ("number", "sides"), [(64, (8, 8)), (12, (3, 4)), (7, (1, 7)), (1, (1, 1))]
)
def test_a_grid_is_as_square_as_can_be(number, sides):
  assert pair_scaling._sides(number) == sides


def test_both_programs_compute_the_same():
  shape = 2, 6, 1, 4
  keys = jax.random.split(jax.random.key(0), 2)
  projected = {
    "angle": heads.Projections(*(jax.random.normal(k, shape) for k in keys))
  }
  order = jnp.array([[3, 1, 0, 2, 5, 4], [0, 1, 2, 3, 4, 5]])
  dense, blocks = (
    jax.jit(pair_scaling._training((2, 3), how))(projected, order)
    for how in (pair_blocks.DENSE, pair_blocks.PairBlocks(4))
  )
  for one, other in zip(
    jax.tree.leaves(dense), jax.tree.leaves(blocks), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_the_figure_shows_what_was_measured():
  figure = pair_scaling.figure(
    [Row(64, 0.1, 0.2, 2**20, 2**21), Row(256, None, 0.4, 2**24, 2**22)],
    "two grids",
  )
  times, bytes_ = figure.axes
  lines = {
    (place, line.get_label()): np.asarray(line.get_xydata()).tolist()
    for place, axes in enumerate((times, bytes_))
    for line in axes.lines
  }
  assert lines == {
    (0, "dense"): [[64, 0.1]],
    (0, "blockwise"): [[64, 0.2], [256, 0.4]],
    (1, "dense"): [[64, 1], [256, 16]],
    (1, "blockwise"): [[64, 2], [256, 4]],
  }
