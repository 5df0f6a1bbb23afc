"""Vectors that are moved on together, and come back to their places."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from relvit_jax.training import optimizer, stacking


def arrays(fill=1.0):
  return {
    "blocks": {
      i: {
        "kernel": jnp.full((3, 2), fill * (i + 1)),
        "bias": jnp.full((2,), fill * 10 * (i + 1)),
        "scale": jnp.full((3,), fill * 100 * (i + 1)),
      }
      for i in range(2)
    },
    "token": jnp.full((1, 1, 3), fill),
  }


def test_vectors_of_one_length_are_rows():
  made = stacking.together(arrays())
  assert set(made) == {"blocks", "token", "rows"}
  assert {i: set(block) for i, block in made["blocks"].items()} == {
    0: {"kernel"},
    1: {"kernel"},
  }
  np.testing.assert_array_equal(made["rows"][2].array, [[10, 10], [20, 20]])
  np.testing.assert_array_equal(
    made["rows"][3].array, [[100, 100, 100], [200, 200, 200]]
  )
  assert made["rows"][2].paths == (("blocks", 0, "bias"), ("blocks", 1, "bias"))


def test_apart_they_are_where_they_were():
  back = stacking.apart(stacking.together(arrays()))
  jax.tree.map(np.testing.assert_array_equal, back, arrays())
  assert jax.tree.structure(back) == jax.tree.structure(arrays())


def test_what_is_not_stacked_stays():
  given = arrays()
  assert stacking.apart(given) == given
  assert not stacking.are_together(given)
  assert stacking.are_together(stacking.together(given))


def test_only_what_is_like_the_parameters_is_changed():
  params = arrays()
  given = {
    "count": jnp.zeros(()),
    "mean": arrays(2.0),
    "other": {"bias": jnp.ones(2)},
    "none": {},
  }
  made = stacking.within(stacking.together, given, params)
  assert set(made["mean"]) == {"blocks", "token", "rows"}
  assert made["other"] == given["other"]
  assert made["count"] is given["count"]
  assert made["none"] == {}
  back = stacking.within(stacking.apart, made, stacking.together(params))
  jax.tree.map(np.testing.assert_array_equal, back, given)


def gradients():
  """Of one bias nothing is learnt, of one scale only in part."""
  made = jax.tree.map(lambda leaf: 0.01 * leaf + 0.1, arrays())
  made["blocks"][0]["bias"] = jnp.zeros(2)
  made["blocks"][1]["scale"] = jnp.array([0.5, 0.0, 0.0])
  return made


@pytest.mark.parametrize("decay_all", [False, True])
def test_adamw_moves_rows_as_it_moves_vectors(decay_all):
  """Also a row of which nothing is learnt: it does not decay."""
  tx = optimizer.adamw(0.1, 0.3, 1.0, decay_all=decay_all)

  def moved(change):
    params = change(arrays())
    state = tx.init(params)
    for _ in range(3):
      updates, state = tx.update(change(gradients()), state, params)
      params = optax.apply_updates(params, updates)
    return stacking.apart(params)

  alone, together = moved(lambda tree: tree), moved(stacking.together)
  jax.tree.map(
    lambda ours, want: np.testing.assert_allclose(ours, want, rtol=1e-6),
    together,
    alone,
  )
  np.testing.assert_array_equal(together["blocks"][0]["bias"], [10, 10])
  shrunk = together["blocks"][1]["scale"][1:] < 200
  assert shrunk.all() == decay_all
