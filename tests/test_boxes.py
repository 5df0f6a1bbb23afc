"""Which part of an image is shown: one definition, NumPy's and JAX's alike."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relvit_jax.data import augment, boxes

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
WORDS = np.array([1, 2], np.uint32)
CROPS = boxes.Crops(224, SCALE, RATIO, 160, 224 / 256)

on_a_device = jax.jit(boxes.draw_boxes, static_argnums=(2, 3))


def sizes(count, height, width):
  return np.broadcast_to(np.array([[height, width]], np.int32), (count, 2))


@given(st.integers(1, 600), st.integers(1, 600), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_a_worker_draws_the_boxes_that_a_device_does(height, width, step):
  numbers = boxes.numbers_of_step(WORDS, step, 64)
  given = sizes(64, height, width)
  ours = boxes.draw_boxes(numbers, given, SCALE, RATIO)
  theirs = np.asarray(on_a_device(jnp.asarray(numbers), given, SCALE, RATIO))
  # Both compute in float32; a root that ends near a half may round either way.
  assert np.abs(ours - theirs).max() <= 1
  assert (ours != theirs).any(axis=1).sum() <= 1
  assert ours.dtype == theirs.dtype == np.int32


@pytest.mark.parametrize("size", [(32, 32), (375, 500), (30, 100)])
def test_boxes_of_a_worker_are_spread_as_those_of_a_device(size):
  numbers = boxes.numbers_of_step(WORDS, 3, 4000)
  ours = boxes.draw_boxes(numbers, sizes(4000, *size), SCALE, RATIO)
  keys = jax.random.split(jax.random.key(0), 4000)
  draw = jax.jit(augment.draw_boxes, static_argnums=(2, 3))
  theirs = np.asarray(draw(keys, sizes(4000, *size), SCALE, RATIO))
  # Four standard errors of either mean.
  error = 4 * theirs.std(axis=0) * np.sqrt(2 / 4000)
  assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < error).all()
  np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.06)


def test_numbers_follow_from_run_step_and_place_alone():
  whole = boxes.numbers_of_step(WORDS, 7, 256)
  assert whole.shape == (256, 22)
  assert whole.dtype == np.float32
  np.testing.assert_array_equal(whole[:31], boxes.numbers_of_step(WORDS, 7, 31))
  # A run that goes on with another version of NumPy draws what it would have.
  bits = (whole * 2**24).astype(int)
  assert bits[0, :3].tolist() == [10107805, 9659324, 11717442]
  assert bits[255, -3:].tolist() == [7341883, 395788, 3851954]


def test_no_two_steps_places_or_runs_draw_the_same():
  drawn = np.concatenate(
    [
      boxes.numbers_of_step(words, step, 64).ravel()
      for words in (WORDS, WORDS[::-1], WORDS + np.uint32(1))
      for step in (0, 1, 2**31 - 2)
    ]
  )
  assert 0 <= drawn.min() < 0.001
  assert 0.999 < drawn.max() < 1
  np.testing.assert_allclose(drawn.mean(), 0.5, atol=0.01)
  np.testing.assert_allclose(drawn.var(), 1 / 12, atol=0.002)
  # Of 12,672 numbers with 24 bits five pairs are alike by chance.
  assert len(drawn) - len(np.unique(drawn)) < 20


@pytest.mark.parametrize(
  ("size", "share", "box"),
  [
    ((100, 200), None, (0, 0, 100, 200)),
    ((100, 200), 1.0, (0, 50, 100, 100)),
    ((200, 100), 0.5, (75, 25, 50, 50)),
    ((5, 5), 0.5, (1.25, 1.25, 2.5, 2.5)),
  ],
)
def test_the_middle_of_an_image(size, share, box):
  for namespace in (np, jnp):
    made = boxes.centre_boxes(namespace.asarray([size]), share)
    np.testing.assert_array_equal(made, [box])
  crops = boxes.Crops(224, SCALE, RATIO, 160, share)
  np.testing.assert_array_equal(crops.box(size), box)
  assert crops.box(size).dtype == np.float32


@pytest.mark.parametrize("share", [0, 1.5])
def test_a_share_beyond_the_image_is_refused(share):
  with pytest.raises(ValueError, match=f"share={share} must be above 0 and"):
    boxes.centre_boxes(sizes(1, 4, 4), share)


def test_a_random_box_is_that_of_its_numbers():
  numbers = boxes.numbers_of_step(WORDS, 0, 5)
  together = boxes.draw_boxes(numbers, sizes(5, 375, 500), SCALE, RATIO)
  for row, box in zip(numbers, together, strict=True):
    np.testing.assert_array_equal(CROPS.box((375, 500), row), box)


def test_the_host_draws_without_jax():
  code = (
    "import sys, relvit_jax.data.boxes, relvit_jax.data.splits\n"
    "sys.exit('jax' in sys.modules)"
  )
  assert subprocess.call([sys.executable, "-c", code]) == 0
