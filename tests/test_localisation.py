"""What dense relative localisation is asked, and how far off it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax.training import drloc
from relvit_jax.training.localisation import Localisation, Pairs, shown

# On a grid of 3 × 4: from (0, 3) to (2, 1), and from a patch to itself.
PAIRS = Pairs(jnp.array([[[0, 3], [1, 1]]]), jnp.array([[[2, 1], [1, 1]]]))
SIZE = (3, 4)


def right_answer(asked):
  """What a head would say that knows it."""
  wanted = drloc.targets(*PAIRS, SIZE, asked.use_abs)
  if asked.mode != "l1":
    classes = 4 if asked.use_abs else 7
    return 50.0 * jnp.eye(classes)[wanted].swapaxes(1, 2)
  if not asked.normalise_targets:
    return wanted.astype(jnp.float32)
  return jnp.array([[2 / 3, 2 / 4], [0, 0]]) * (
    1 if asked.use_abs else jnp.array([[-1.0, 1.0], [1.0, 1.0]])
  )


@pytest.mark.parametrize("use_abs", [True, False])
@pytest.mark.parametrize(
  ("mode", "normalised"), [("l1", False), ("l1", True), ("ce", 0), ("cbr", 0)]
)
def test_the_right_answer_is_not_off_and_costs_least(mode, normalised, use_abs):
  asked = Localisation(2, mode, use_abs, bool(normalised))
  right = right_answer(asked)
  np.testing.assert_allclose(asked.errors(right, PAIRS, SIZE), 0, atol=1e-6)
  np.testing.assert_allclose(
    asked.losses(right, PAIRS, SIZE).mean(),
    drloc.drloc(
      right, *PAIRS, SIZE, mode, use_abs, normalise_targets=bool(normalised)
    ),
    rtol=1e-6,
  )
  worse = jnp.roll(right, 1, axis=0)
  assert (asked.errors(worse, PAIRS, SIZE) > 0.9).all()
  assert (
    asked.losses(worse, PAIRS, SIZE) > asked.losses(right, PAIRS, SIZE)
  ).all()


def test_an_error_is_a_mean_over_rows_and_columns():
  asked = Localisation(2)
  answer = jnp.array([[2.0, 3.0], [0.5, 0.0]])
  np.testing.assert_allclose(asked.errors(answer, PAIRS, SIZE), [[0.5, 0.25]])


def test_chance_is_the_best_constant_answer():
  assert Localisation().chance((7, 7)) == pytest.approx(66 / 49)
  assert Localisation(use_abs=False).chance((7, 7)) == pytest.approx(16 / 7)


def test_a_permutation_moves_both_ends():
  order = np.array([[3, 0, 1, 2], [0, 1, 2, 3]])
  places = Pairs(
    jnp.array([[[0, 0]], [[0, 0]]]), jnp.array([[[1, 0]], [[1, 0]]])
  )
  moved = shown(places, order, (2, 2))
  np.testing.assert_array_equal(moved.first, [[[1, 1]], [[0, 0]]])
  np.testing.assert_array_equal(moved.second, [[[0, 1]], [[1, 0]]])
  assert shown(places, None, (2, 2)) is places


def test_images_are_trained_on_pairs_of_their_own_and_evaluated_on_the_same():
  asked = Localisation(5)
  drawn = asked.draw(jax.random.key(1), 3, SIZE)
  assert drawn.first.shape == (3, 5, 2)
  assert not (drawn.first[0] == drawn.first[1]).all()
  same = asked.same(3, SIZE)
  for places in same:
    assert (places == places[:1]).all()
  np.testing.assert_array_equal(same.first[:1], asked.same(1, SIZE).first)
