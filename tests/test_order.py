"""The order of the data: a function of the step, each example once an epoch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from relvit_jax.data import order

WORDS = np.array([12345, 67890], np.uint32)


def stream(num_steps, batch_size, num_examples, first=0, words=WORDS):
  return order.batch_indices(words, first, num_steps, batch_size, num_examples)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 50))
def test_every_epoch_shows_every_example_once(batch_size, num_examples):
  seen = stream(num_examples * 2, batch_size, num_examples).ravel()
  for epoch in seen.reshape(-1, num_examples):
    assert sorted(epoch) == list(range(num_examples))


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 40))
def test_any_step_is_found_without_walking_there(batch, examples, first):
  np.testing.assert_array_equal(
    stream(3, batch, examples, first),
    stream(first + 3, batch, examples)[first:],
  )


@pytest.mark.parametrize("num_examples", [1, 2, 7, 1_097, 50_000])
def test_device_and_host_agree(num_examples):
  device = jax.jit(
    lambda first: order.batch_indices(
      jnp.asarray(WORDS), first, 3, 32, num_examples
    )
  )(jnp.int32(1_563))
  np.testing.assert_array_equal(device, stream(3, 32, num_examples, 1_563))


def test_epochs_and_runs_have_orders_of_their_own():
  epochs = stream(3, 100, 100)
  other = stream(3, 100, 100, words=WORDS + np.uint32(1))
  both = np.concatenate([epochs, other])
  for i in range(6):
    for j in range(i):
      assert (both[i] == both[j]).sum() < 10  # One in a hundred by chance.


def test_late_in_a_long_run_positions_do_not_overflow():
  # A billion steps of 256 images are 2^37 of them.
  for words in (WORDS, jnp.asarray(WORDS)):
    late = np.asarray(stream(2, 256, 50_000, 1_000_000_000, words))
    assert (late >= 0).all()
    assert (late < 50_000).all()
    assert len(np.unique(late)) > 500


def test_what_would_overflow_on_a_device_is_refused():
  with pytest.raises(
    ValueError, match=r"batch_size=4096 times 1000000 .* 2\^31"
  ):
    stream(1, 4096, 1_000_000, words=jnp.asarray(WORDS))


def uniform(counts):
  """The chance that equal frequencies give counts as uneven as these."""
  return scipy.stats.chisquare(np.ravel(counts)).pvalue


@pytest.mark.parametrize("num_examples", [3, 10, 64])
def test_every_example_comes_to_every_place_equally_often(num_examples):
  epochs = stream(200 * num_examples, num_examples, num_examples)
  counts = np.zeros((num_examples, num_examples))
  np.add.at(counts, (np.arange(num_examples), epochs), 1)
  assert uniform(counts) > 1e-3


def test_all_orders_of_four_are_equally_likely():
  epochs = stream(24 * 400, 4, 4)
  _, counts = np.unique(epochs, axis=0, return_counts=True)
  assert len(counts) == 24
  assert uniform(counts) > 1e-3


def test_neighbours_do_not_stay_together():
  epochs = stream(2_000, 50, 50)
  steps = np.diff(epochs, axis=1) % 50  # 0 cannot be.
  assert uniform(np.bincount(steps.ravel(), minlength=50)[1:]) > 1e-3


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 9), st.integers(2, 30), st.integers(2, 4))
def test_with_repeats_an_epoch_shows_the_start_of_its_order_so_often(
  batch_size, num_examples, repeats
):
  def walk(**more):
    return order.batch_indices(
      WORDS, 0, num_examples, batch_size, num_examples, **more
    )

  # Sorted back from the places in the batch that mixing wants.
  inside = np.arange(batch_size)
  inside = inside // 2 + inside % 2 * -(-batch_size // 2)
  repeated = np.empty((num_examples, batch_size), int)
  repeated[:, inside] = walk(repeats=repeats)
  for shown, once in zip(
    repeated.reshape(-1, num_examples),
    walk().reshape(-1, num_examples),
    strict=True,
  ):
    np.testing.assert_array_equal(
      shown, np.repeat(once, repeats)[:num_examples]
    )


def test_repetitions_are_no_partners_in_mixing():
  for seen in order.batch_indices(WORDS, 0, 20, 128, 5_000, repeats=3):
    assert len(np.unique(seen)) <= 44
    assert (seen[0::2] != seen[1::2]).all()
