"""What a pair of patches is asked, and what an answer costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax import grid
from relvit_jax.training import pair_tasks

ORDER = np.array([[3, 1, 0, 2], [0, 2, 3, 1]])


def test_shown_patches_have_the_coordinates_of_their_own_place():
  np.testing.assert_array_equal(
    pair_tasks.shown((2, 2), ORDER)[0], [[1, 1], [0, 1], [0, 0], [1, 0]]
  )
  plain = pair_tasks.shown((2, 2), None)
  assert isinstance(plain, np.ndarray)
  np.testing.assert_array_equal(plain, [[[0, 0], [0, 1], [1, 0], [1, 1]]])


@pytest.mark.parametrize("task", ["relation", "distance", "angle"])
def test_targets_are_the_permuted_tables_and_their_rows(task):
  table = {
    "relation": grid.relations,
    "distance": grid.distances,
    "angle": grid.angles,
  }[task](2, 2)
  shown = pair_tasks.shown((2, 2), ORDER)
  expected = grid.permute_pairs(table, ORDER)
  np.testing.assert_allclose(
    pair_tasks.targets(task, shown, (2, 2)), expected, atol=1e-6
  )
  np.testing.assert_allclose(
    pair_tasks.targets(task, shown[:, 1:3], (2, 2), shown),
    expected[:, 1:3],
    atol=1e-6,
  )


def test_a_loss_is_a_cross_entropy_or_a_squared_error():
  scores = np.zeros((1, 9, 1, 2), np.float32)
  scores[0, 7, 0] = [5, 0]
  target = np.array([[[7, 7]]])
  entropy = pair_tasks.losses("relation", jnp.asarray(scores), target)
  sure = np.log(np.exp(5) + 8) - 5
  np.testing.assert_allclose(entropy, [[[sure, np.log(9)]]], rtol=1e-5)
  smooth = pair_tasks.losses("relation", jnp.asarray(scores), target, 0.1)
  # A tenth of the target goes to all nine: to eight of them the 5 is wrong.
  np.testing.assert_allclose(
    smooth, [[[sure + 0.1 * 8 / 9 * 5, np.log(9)]]], rtol=1e-5
  )
  squared = pair_tasks.losses(
    "angle", jnp.array([[[0.5, -1.0]]]), np.array([[[1.0, 1.0]]], np.float32)
  )
  np.testing.assert_allclose(squared, [[[0.25, 4.0]]])


def test_a_score_is_a_hit_or_an_absolute_error():
  scores = np.zeros((1, 9, 1, 2), np.float32)
  scores[0, 7, 0] = [5, -5]
  hits = pair_tasks.scores(
    "relation", jnp.asarray(scores), np.array([[[7, 7]]])
  )
  np.testing.assert_array_equal(hits, [[[1, 0]]])
  errors = pair_tasks.scores(
    "distance", jnp.array([[[0.5, -1.0]]]), np.array([[[1.0, 1.0]]], np.float32)
  )
  np.testing.assert_array_equal(errors, [[[0.5, 2.0]]])


def test_a_block_of_rows_keeps_what_it_keeps_among_all():
  key = jax.random.key(5)
  everything = pair_tasks.kept(key, 0.25, 3, np.arange(20), 20)
  assert everything.shape == (3, 20, 20)
  assert 0.7 < everything.mean() < 0.8
  # No two rows, and no two images, are alike.
  assert len(np.unique(everything.reshape(60, 20), axis=0)) == 60
  rows = np.array([7, 19, 8])
  np.testing.assert_array_equal(
    pair_tasks.kept(key, 0.25, 3, rows, 20), everything[:, rows]
  )


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: pair_tasks.check_share("x", 1.0), r"x=1.0 must be in \[0, 1\)"),
    (
      lambda: pair_tasks.kept(None, 0.5, 1, np.arange(4), 4),
      "relation_dropout=0.5 needs a random key",
    ),
    (
      lambda: pair_tasks.check_grid("this", (1, 4, 4), (2, 3), None),
      r"this does not belong to grid_size=\(2, 3\), which has 6 patches",
    ),
    (
      lambda: pair_tasks.check_grid("this", (1, 4, 4), (2, 2), ORDER),
      r"shape \(2, 4\) must be \[B, N\] = \(1, 4\)",
    ),
  ],
)
def test_what_makes_no_sense_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
