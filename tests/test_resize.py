"""Resizing weights, as tables a person can check by eye."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax import resize


def weights(start, size, count, length, **keywords):
  return resize.axis_weights(
    jnp.array(start), jnp.array(size), count, length, **keywords
  )


def assert_table(actual, desired):
  np.testing.assert_allclose(actual, desired, atol=1e-6)


def test_as_many_pixels_as_before_are_the_pixels():
  np.testing.assert_array_equal(weights(0, 4, 4, 4), np.eye(4))


def test_a_whole_stretch_is_cut_out():
  assert_table(weights(1, 2, 2, 4), [[0, 1, 0, 0], [0, 0, 1, 0]])


def test_enlarging_takes_from_the_two_nearest_pixels():
  assert_table(
    weights(0, 2, 4, 2), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
  )


def test_halving_weighs_four_pixels_by_a_triangle():
  # Two pixels wide to each side, at distances 0.5 and 1.5 of 2.
  inside = [0.125, 0.375, 0.375, 0.125]
  assert_table(weights(0, 6, 3, 6)[1], [0, *inside, 0])
  # At the border the pixel outside is missing, the others take its share.
  assert_table(weights(0, 6, 3, 6)[0] * 7, [3, 3, 1, 0, 0, 0])


def test_without_antialias_only_the_nearest_count():
  assert_table(
    weights(0, 6, 2, 6, antialias=False),
    [[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]],
  )


def test_neighbours_count_unless_bounded():
  assert_table(weights(2, 2, 1, 6), [[0, 0, 0.5, 0.5, 0, 0]])
  assert_table(
    weights(2, 2, 1, 6, bounded=False), [[0, 0.125, 0.375, 0.375, 0.125, 0]]
  )


def test_a_stretch_may_begin_between_pixels():
  # Pixels 0 and 2 are touched by half; at distance 1 and 0 of their middle.
  assert_table(weights(0.5, 2.0, 1, 4), [[0.25, 0.5, 0.25, 0]])
  # Within one pixel there is only that pixel.
  assert_table(weights(1.25, 0.5, 2, 4), [[0, 1, 0, 0]] * 2)


def test_each_stretch_has_its_own_weights():
  starts, sizes = jnp.array([[0, 1], [2, 0]]), jnp.array([[3, 2], [1, 4]])
  table = resize.axis_weights(starts, sizes, 2, 4)
  assert table.shape == (2, 2, 2, 4)
  for i in np.ndindex(2, 2):
    assert_table(table[i], weights(starts[i], sizes[i], 2, 4))


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_weights_are_shares(count, bounded, antialias):
  """Of every stretch of whole and half pixels in an axis of 5."""
  ends = np.arange(11) / 2
  stretches = np.array([(a, b - a) for a in ends for b in ends if a < b])
  table = resize.axis_weights(
    *jnp.asarray(stretches.T), count, 5, bounded=bounded, antialias=antialias
  )
  assert (table >= 0).all()
  assert_table(table.sum(axis=-1), np.ones((len(stretches), count)))


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("start", "size"), [(3.25, 5.5), (0, 12), (4, 1)])
def test_unbounded_stretches_are_those_of_jax_image(start, size, antialias):
  signal = np.random.default_rng(0).normal(size=12).astype(np.float32)
  expected = jax.image.scale_and_translate(
    signal,
    (7,),
    (0,),
    jnp.array([7 / size]),
    jnp.array([-start * 7 / size]),
    "linear",
    antialias=antialias,
  )
  table = weights(start, size, 7, 12, antialias=antialias, bounded=False)
  np.testing.assert_allclose(table @ signal, expected, atol=1e-5)


def test_weighted_sums_go_along_both_axes():
  images = jnp.arange(12.0).reshape(2, 2, 3, 1)
  rows = jnp.array([[[1.0, 1.0]], [[0.0, 1.0]]])
  columns = jnp.array([[[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]])  # Of both images.
  sums = resize.weighted_sums(images, rows, columns)
  np.testing.assert_array_equal(sums[..., 0], [[[3, 14]], [[9, 22]]])
