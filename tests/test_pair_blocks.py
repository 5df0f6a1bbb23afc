"""Blocks give the losses and metrics that all pairs at once give."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relvit_jax.models import heads
from relvit_jax.training import metrics, objectives, pair_blocks
from relvit_jax.training.pair_blocks import PairBlocks, rows_of

SIZE = (3, 5)
WIDTHS = {"relation": (9, 2), "distance": (1, 5), "angle": (1, 5)}


@functools.partial(jax.jit, static_argnums=(0, 1))
def judge(blocks, are_dense, projected, order, key, mask):
  """(gradients of the total, (losses, metrics))."""
  options = {
    "relation_smoothing": blocks.relation_smoothing,
    "relation_dropout": blocks.relation_dropout,
  }
  asked = {"permutation": order, "mask": mask}

  def total(projected):
    if are_dense:
      outputs = {t: heads.pair_scores(*p) for t, p in projected.items()}
      outputs |= {t: outputs[t][:, 0] for t in ("distance", "angle")}
    else:
      outputs = blocks.answer(projected, SIZE, order, key)
    losses = objectives.losses(outputs, {}, SIZE, key=key, **asked, **options)
    measured = metrics.measure(outputs, {}, SIZE, **asked)
    return losses["total"], (losses, measured)

  return jax.grad(total, has_aux=True)(projected)


@settings(deadline=None, max_examples=4)
@given(
  rows=st.sampled_from([1, 4, 6, 15, 20]),
  smoothing=st.sampled_from([0.0, 0.1]),
  dropout=st.sampled_from([0.0, 0.4]),
  masked=st.booleans(),
  permuted=st.booleans(),
  seed=st.integers(0, 2**31),
)
def test_losses_metrics_and_gradients_are_the_dense_ones(
  rows, smoothing, dropout, masked, permuted, seed
):
  random = np.random.default_rng(seed)
  projected = {
    task: heads.Projections(
      *random.normal(size=(2, 3, 15, *width)).astype(np.float32)
    )
    for task, width in WIDTHS.items()
  }
  order = np.stack([random.permutation(15) for _ in range(3)])
  ours, theirs = (
    judge(
      PairBlocks(rows, smoothing, dropout),
      are_dense,
      projected,
      order if permuted else None,
      jax.random.key(seed),
      np.array([True, True, False]) if masked else None,
    )
    for are_dense in (False, True)
  )
  assert set(ours[1][0]) == {*WIDTHS, "total"}
  assert set(ours[1][1]) == {
    "relation_accuracy",
    "distance_error",
    "angle_error",
  }
  chex.assert_trees_all_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_what_is_masked_may_be_no_number():
  query = jnp.ones((2, 15, 1, 5)).at[1].set(jnp.nan)
  projected = {"angle": heads.Projections(query, query)}
  answered = PairBlocks(4).answer(projected, SIZE)
  mask = np.array([True, False])
  loss = objectives.losses(answered, {}, SIZE, mask=mask)["angle"]
  np.testing.assert_allclose(loss, answered["angle"].loss[0], rtol=1e-6)
  assert np.isnan(objectives.losses(answered, {}, SIZE)["angle"])


def projections(num_patches=4, batch=1):
  shape = (batch, num_patches, 9, 2)
  return heads.Projections(jnp.zeros(shape), jnp.ones(shape))


def test_what_has_no_pairs_is_passed_through():
  outputs = {"label": jnp.zeros((1, 3)), "relation": projections()}
  answered = PairBlocks(2).answer(outputs, (2, 2))
  assert answered["label"] is outputs["label"]
  np.testing.assert_allclose(answered["relation"].loss, [np.log(9)], rtol=1e-6)
  dense = {"relation": jnp.zeros((1, 9, 4, 4))}
  assert pair_blocks.DENSE.answer(dense, (2, 2)) == dense


def test_of_pairs_that_are_all_left_out_the_loss_is_nothing():
  answered = pair_blocks.Answered(jnp.zeros(2), jnp.zeros(2), jnp.zeros(2))
  assert answered.mean() == 0
  assert answered.mean(np.array([False, True])) == 0


def test_the_number_of_patches_decides_unless_the_config_does():
  assert rows_of(None, 196) == 0
  assert rows_of(None, 28 * 28) == pair_blocks.ROWS
  assert rows_of(0, 28 * 28) == 0
  assert rows_of(7, 196) == 7


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: PairBlocks(-1), "rows=-1 of a block must be 0 or more"),
    (
      lambda: PairBlocks(2, relation_dropout=1.0),
      r"relation_dropout=1.0 must be in \[0, 1\)",
    ),
    (
      lambda: PairBlocks(2).answer({"relation": projections()}, (2, 3)),
      r"queries of relation, of shape \(1, 4, 9, 2\), .* grid_size=\(2, 3\)",
    ),
    (
      lambda: PairBlocks(2).answer(
        {"relation": projections()}, (2, 2), np.arange(4)
      ),
      r"permutation of shape \(4,\) must be \[B, N\] = \(1, 4\)",
    ),
    (
      lambda: PairBlocks(2, 0.0, 0.5).answer(
        {"relation": projections()}, (2, 2)
      ),
      "relation_dropout=0.5 needs a random key",
    ),
    (
      lambda: PairBlocks(0).answer({"relation": projections()}, (2, 2)),
      "rows=0 has no blocks for the queries and keys of relation",
    ),
    (
      lambda: objectives.losses({"relation": projections()}, {}, (2, 2)),
      "the relation output is queries and keys, not scores",
    ),
    (
      lambda: objectives.losses(
        PairBlocks(2, 0.1).answer({"relation": projections()}, (2, 2)),
        {},
        (2, 2),
      ),
      "relation_smoothing=0.0, but the blocks were answered with 0.1",
    ),
  ],
)
def test_what_makes_no_sense_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
