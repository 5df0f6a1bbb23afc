"""The order of the data: a function of the step, each example once an epoch."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from relvit_jax.data import feed, sources

KEY = jax.random.key(0)


def stream(num_steps, batch_size, num_examples, first=0):
  return np.asarray(
    feed.batch_indices(
      KEY, jnp.int32(first), num_steps, batch_size, num_examples
    )
  )


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 9), st.integers(1, 12))
def test_every_epoch_shows_every_example_once(batch_size, num_examples):
  seen = stream(num_examples * 2, batch_size, num_examples).ravel()
  for epoch in seen.reshape(-1, num_examples):
    assert sorted(epoch) == list(range(num_examples))


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 40))
def test_where_a_dispatch_begins_does_not_matter(batch, examples, first):
  np.testing.assert_array_equal(
    stream(3, batch, examples, first),
    stream(first + 3, batch, examples)[first:],
  )


def test_epochs_are_in_different_orders():
  epochs = stream(3, 100, 100)
  assert len(np.unique(epochs, axis=0)) == 3


def test_late_in_a_long_run_positions_do_not_overflow():
  # A billion steps of 256 images are 2^37 of them.
  late = stream(2, 256, 50_000, first=1_000_000_000)
  assert (late >= 0).all()
  assert (late < 50_000).all()
  assert len(np.unique(late)) > 500


def test_evaluation_batches_hold_every_example_once():
  split = sources.digits()["test"]
  batches = list(feed.evaluation_batches(split, 128))
  assert {batch["image"].shape for batch in batches} == {(128, 8, 8, 3)}
  masks = np.concatenate([batch["mask"] for batch in batches])
  labels = np.concatenate([batch["label"] for batch in batches])
  assert masks.sum() == 500
  np.testing.assert_array_equal(labels[masks], split.labels)
