"""The official learning-rate curve, and AdamW step by step."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from relvit_jax.training import optimizer


def rates(steps, total=200):
  schedule = optimizer.paper_schedule(5e-4, 1.25e-6, total)
  return np.array([schedule(step) for step in steps])


def test_the_rate_climbs_for_a_tenth_of_the_run_then_jumps_to_a_cosine():
  # Read from what the official code computed for 200 steps.
  official = {
    0: 0.0,
    1: 2.5e-5,
    19: 4.75e-4,
    20: 4.9386e-4,
    21: 4.9323e-4,
    200: 1.25e-6,
  }
  np.testing.assert_allclose(
    rates(official), list(official.values()), rtol=1e-5, atol=1e-12
  )


def test_after_warm_up_it_is_a_quarter_of_a_cosine():
  shares = rates([50, 100, 150, 180]) / 5e-4
  np.testing.assert_allclose(shares, [0.924, 0.708, 0.384, 0.159], atol=2e-3)


def test_a_run_too_short_to_warm_up_begins_at_the_full_rate():
  np.testing.assert_allclose(rates([0], total=9), 5e-4, rtol=1e-6)


def test_the_schedule_equals_the_official_one(reference):
  archive = reference("lr_schedule_total200")
  schedule = optimizer.paper_schedule(
    float(archive["base_lr"]), float(archive["end_lr"]), 200
  )
  ours = np.array([schedule(step) for step in range(201)])
  np.testing.assert_allclose(ours, archive["lr"], rtol=1e-6, atol=1e-12)


def test_the_cosine_falls_from_the_end_of_a_straight_warm_up():
  schedule = optimizer.cosine_schedule(1.0, 0.1, 30, 10, 0.2)
  table = {0: 0.2, 5: 0.6, 9: 0.92, 10: 1.0, 15: 0.8682, 20: 0.55, 30: 0.1}
  rates = [schedule(step) for step in table]
  np.testing.assert_allclose(rates, list(table.values()), rtol=1e-4)
  assert schedule(99) == np.float32(0.1)


def test_the_cosine_is_that_of_optax():
  ours = optimizer.cosine_schedule(5e-4, 5e-6, 200, 20, 5e-7)
  theirs = optax.warmup_cosine_decay_schedule(5e-7, 5e-4, 20, 200, 5e-6)
  steps = jnp.arange(201)
  np.testing.assert_allclose(
    jax.vmap(ours)(steps), jax.vmap(theirs)(steps), rtol=1e-5
  )


def test_without_warm_up_the_cosine_begins_at_its_height():
  assert optimizer.cosine_schedule(3.0, 0.0, 7)(0) == 3.0


def apply(tx, params, gradients, steps=1):
  state = tx.init(params)
  for _ in range(steps):
    updates, state = tx.update(gradients, state, params)
    params = optax.apply_updates(params, updates)
  return params


def test_the_first_step_is_the_rate_and_the_decay():
  tx = optimizer.paper_adamw(0.1, weight_decay=0.5, clip_norm=None)
  after = apply(tx, {"w": jnp.array([2.0])}, {"w": jnp.array([-3.0])})
  # Adam's first step has size 1, against the gradient; the decay takes half
  # of the weight, both times the rate.
  np.testing.assert_allclose(after["w"], [2.0 + 0.1 - 0.1 * 0.5 * 2], rtol=1e-6)


def test_what_has_no_gradient_does_not_decay():
  tx = optimizer.paper_adamw(0.1, weight_decay=0.5)
  params = {"used": jnp.ones(2), "unused": jnp.ones(2)}
  gradients = {"used": jnp.array([0.0, 1.0]), "unused": jnp.zeros(2)}
  after = apply(tx, params, gradients, steps=3)
  np.testing.assert_array_equal(after["unused"], 1)
  assert (np.asarray(after["used"]) < 1).all()


def test_biases_and_norms_decay_too():
  tx = optimizer.paper_adamw(0.1, weight_decay=0.5)
  params = {"bias": jnp.full(3, 9.0), "scale": jnp.full(3, 9.0)}
  small = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-12), params)
  for leaf in jax.tree.leaves(apply(tx, params, small)):
    assert (leaf < 9.0 - 0.4).all()


DECAYED = {
  "blocks": {0: {"mlp": {"fc1": {"kernel": True, "bias": False}}}},
  "norm": {"scale": False, "bias": False},
  "patch_embed": {"proj": {"kernel": True}},
  "attn": {"relative_position_bias_table": False},
  "cls_token": False,
  "pos_embed": False,
}


@pytest.mark.parametrize("decay_all", [False, True])
def test_matrices_decay_and_nothing_else(decay_all):
  tx = optimizer.adamw(0.1, weight_decay=0.5, decay_all=decay_all)
  vectors = ("bias", "scale")
  params = jax.tree_util.tree_map_with_path(
    lambda path, _: jnp.full((2,) if path[-1].key in vectors else (2, 2), 9.0),
    DECAYED,
  )
  # Adam's step of the size of the rate, and half of the weight at the rate.
  small = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), params)
  after = apply(tx, params, small)
  for leaf, decayed in zip(
    jax.tree.leaves(after), jax.tree.leaves(DECAYED), strict=True
  ):
    expected = 9 - 0.1 - (0.1 * 0.5 * 9 if decayed or decay_all else 0)
    np.testing.assert_allclose(leaf, np.full(leaf.shape, expected), rtol=1e-5)


def test_a_matrix_without_a_gradient_does_not_decay_either():
  tx = optimizer.adamw(0.1, weight_decay=0.5)
  params = {"kernel": jnp.ones((2, 2))}
  after = apply(tx, params, {"kernel": jnp.zeros((2, 2))})
  np.testing.assert_array_equal(after["kernel"], params["kernel"])


def test_adamw_that_decays_all_is_the_papers():
  params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
  gradients = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, -4.0)}
  ours = optimizer.adamw(0.01, 0.1, 1.0, decay_all=True)
  for a, b in zip(
    jax.tree.leaves(apply(ours, params, gradients, 3)),
    jax.tree.leaves(
      apply(optimizer.paper_adamw(0.01, 0.1, 1.0), params, gradients, 3)
    ),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)


def test_an_average_moves_by_the_share_that_is_not_decay():
  average, params = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([2.0, 2.0])}
  after = optimizer.ema(average, params, 0.75)
  np.testing.assert_allclose(after["w"], [1.25, -1.0])
  traced = jax.jit(optimizer.ema)(average, params, 0.75)
  np.testing.assert_allclose(traced["w"], [1.25, -1.0])
  same = optimizer.ema(average, params, 0)
  np.testing.assert_array_equal(same["w"], params["w"])


def test_gradients_are_clipped_by_their_common_norm():
  tx = optimizer.paper_adamw(0.1, weight_decay=0.0, clip_norm=1.0)
  params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
  state = tx.init(params)
  _, state = tx.update(
    {"a": jnp.array([30.0]), "b": jnp.array([40.0])}, state, params
  )
  mu: Any = optax.tree.get(state, "mu")
  # A tenth of the clipped gradient, 0.6 and 0.8, is the first moment.
  np.testing.assert_allclose([mu["a"][0], mu["b"][0]], [0.06, 0.08], rtol=1e-5)


@pytest.mark.parametrize("largest", [0.1, 1.0, 5.0, 50.0])
def test_clipping_by_a_factor_is_that_of_optax(largest):
  gradients = {"a": jnp.array([3.0, -4.0]), "b": jnp.array([[12.0]])}
  found, expected = (
    tx.update(gradients, tx.init(gradients))[0]
    for tx in (
      optimizer.clip_by_factor(largest),
      optax.clip_by_global_norm(largest),
    )
  )
  chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_nothing_to_clip_stays_nothing():
  tx = optimizer.clip_by_factor(1.0)
  updates, _ = tx.update({"a": jnp.zeros(2)}, tx.init({"a": jnp.zeros(2)}))
  np.testing.assert_array_equal(updates["a"], [0, 0])


def test_the_type_of_a_gradient_stays():
  tx = optimizer.clip_by_factor(1.0)
  gradients = {"a": jnp.ones(4, jnp.bfloat16), "b": jnp.ones(4)}
  updates, _ = tx.update(gradients, tx.init(gradients))
  assert updates["a"].dtype == jnp.bfloat16
  assert updates["b"].dtype == jnp.float32


def test_a_run_without_steps_is_refused():
  with pytest.raises(ValueError, match="total_steps=0 must be at least 1"):
    optimizer.paper_schedule(1e-3, 0.0, 0)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (
      lambda: optimizer.cosine_schedule(1e-3, 0.0, 10, 10),
      "warmup_steps=10 must be from 0 to below total_steps=10",
    ),
    (
      lambda: optimizer.cosine_schedule(1e-3, -1.0, 10),
      "end_lr=-1.0 and warmup_lr=0.0 must not be negative",
    ),
    (
      lambda: optimizer.adamw(1e-3, clip_norm=0.0),
      "clip_norm=0.0 must be positive, or None",
    ),
    (lambda: optimizer.ema({}, {}, 1.0), "decay=1.0 must be from 0 to below 1"),
  ],
)
def test_what_cannot_be_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_an_average_soon_forgets_the_first_weights():
  average = optimizer.averaging(0.9)
  # At step 0 a tenth stays; at step 9 ten of nineteen; late, the decay.
  for step, kept in ((0, 1 / 10), (9, 10 / 19), (1_000, 0.9)):
    whole, nothing = {"w": jnp.float32(1)}, {"w": jnp.float32(0)}
    mean = average(whole, nothing, jnp.int32(step))
    np.testing.assert_allclose(mean["w"], kept, rtol=1e-6)
