"""Colours of patches: torchvision's figures, and what is drawn."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax.data import colour

FACTORS = (1.3, 0.7, 1.4, -0.08)

INSIDE = [[[0.9, 0.2, 0.1], [0.3, 0.8, 0.5]], [[0.1, 0.4, 0.7], [0.6] * 3]]
# As standardised images are: below 0, above 1.
OUTSIDE = [
  [[1.8, -0.4, 0.3], [-1.2, -0.3, -0.9]],
  [[0.4, 1.5, -0.7], [2.0, 2.0, 2.0]],
]

# What torchvision 0.28's adjust_* make of OUTSIDE, each alone.
ALONE = {
  colour.BRIGHTNESS: [
    [[1, 0, 0.39], [0, 0, 0]],
    [[0.52, 1, 0], [1, 1, 1]],
  ],
  colour.CONTRAST: [
    [[1, 0, 0.406508], [0, 0, 0]],
    [[0.476508, 1, 0], [1, 1, 1]],
  ],
  colour.SATURATION: [
    [[1, 0, 0.285032], [0, 0, 0]],
    [[0.191896, 1, 0], [1, 1, 1]],
  ],
  colour.HUE: [
    [[1.8, 0, 1], [0, -0.3, 0]],
    [[1, 1.5, 0], [2, 1, 1]],
  ],
}

# What they make of INSIDE, one after the other.
IN_ORDER = {
  (3, 0, 1, 2): [
    [[1, 0.204657, 0.566472], [0.417609, 0.964449, 0.366649]],
    [[0.138719, 0.887831, 0.903119], [0.744272] * 3],
  ],
  (1, 3, 2, 0): [
    [[1, 0.183142, 0.544957], [0.403747, 0.989787, 0.352787]],
    [[0.131432, 0.880544, 0.895832], [0.736984] * 3],
  ],
  (2, 0, 3, 1): [
    [[0.887262, 0.187262, 0.413264], [0.350558, 0.887262, 0.345139]],
    [[0.189267, 0.887262, 0.868018], [0.733283] * 3],
  ],
  (0, 2, 1, 3): [
    [[0.875917, 0.175917, 0.387692], [0.342633, 0.875917, 0.340369]],
    [[0.177923, 0.875917, 0.856674], [0.721939] * 3],
  ],
}

ALL = (0, 1, 2, 3)

APPLY = jax.jit(colour.apply_jitter)


def jittered(patch, order=ALL, active=ALL, factors=FACTORS):
  """One patch [p, p, 3], jittered."""
  pixels = jnp.asarray(patch, jnp.float32)[..., None, None]
  jitter = colour.Jitter(
    jnp.array([[factors]], jnp.float32),
    jnp.array([[order]]),
    jnp.array([[[i in active for i in range(4)]]]),
  )
  return np.asarray(APPLY(pixels, jitter))[..., 0, 0]


@pytest.mark.parametrize("step", ALONE)
def test_each_operation_equals_that_of_torchvision(step):
  for order in (ALL, ALL[::-1]):
    np.testing.assert_allclose(
      jittered(OUTSIDE, order, (step,)), ALONE[step], atol=2e-6
    )


@pytest.mark.parametrize("order", IN_ORDER)
def test_all_operations_in_order_equal_those_of_torchvision(order):
  np.testing.assert_allclose(
    jittered(INSIDE, order), IN_ORDER[order], atol=2e-6
  )


def test_in_every_order_it_is_one_after_the_other():
  for order in itertools.permutations(ALL):
    patch = INSIDE
    for step in order:
      patch = jittered(patch, active=(step,))
    np.testing.assert_allclose(jittered(INSIDE, order), patch, atol=1e-6)


def test_what_does_not_happen_clamps_nothing():
  np.testing.assert_array_equal(
    jittered(OUTSIDE, active=()), np.float32(OUTSIDE)
  )


def test_factors_of_one_only_clamp():
  neutral = (1, 1, 1, 0)
  np.testing.assert_allclose(jittered(INSIDE, factors=neutral), INSIDE, 1e-6)
  np.testing.assert_allclose(
    jittered(OUTSIDE, factors=neutral), np.clip(OUTSIDE, 0, 1), atol=1e-6
  )


def test_a_third_of_a_turn_exchanges_the_colours():
  np.testing.assert_allclose(
    jittered(INSIDE, active=(colour.HUE,), factors=(1, 1, 1, 1 / 3)),
    np.roll(INSIDE, 1, axis=-1),
    atol=1e-6,
  )


def test_colours_whose_largest_is_nothing_stay_numbers():
  # torchvision divides chroma by value, and gets NaN here.
  np.testing.assert_array_equal(
    jittered([[[0.0, -1.0, -0.5]]], active=(colour.HUE,)), [[[0, 0, 0]]]
  )


def test_grey_weighs_red_green_and_blue():
  pixels = jnp.eye(3).reshape(3, 1, 3, 1, 1)
  np.testing.assert_allclose(
    colour.grey(pixels).ravel(), [0.2989, 0.587, 0.114], rtol=1e-6
  )


def draw(strengths=(0.4, 0.4, 0.4, 0.1), probability=0.8, patches=8):
  return colour.draw_jitter(
    jax.random.split(jax.random.key(0), 600),
    patches,
    strengths=strengths,
    probability=probability,
  )


def test_factors_fill_their_ranges_evenly():
  factors = np.asarray(draw(strengths=(0.4, 1.5, 0.2, 0.1)).factors)
  ranges = [(0.6, 1.4), (0, 2.5), (0.8, 1.2), (-0.1, 0.1)]
  for i, (low, high) in enumerate(ranges):
    shares = (factors[..., i].ravel() - low) / (high - low)
    assert shares.min() >= -1e-6
    assert shares.max() <= 1 + 1e-6
    # Of 4800; a tenth is 480, four standard deviations are 83.
    counts = np.histogram(shares, bins=10, range=(0, 1))[0]
    assert np.abs(counts - 480).max() < 83
  apart = np.corrcoef(factors.reshape(-1, 4).T) - np.eye(4)
  assert np.abs(apart).max() < 0.06


def test_all_24_orders_are_equally_likely():
  orders = np.asarray(draw().order).reshape(-1, 4)
  counts = collections.Counter(map(tuple, orders.tolist()))
  assert sorted(counts) == list(itertools.permutations(range(4)))
  # Of 4800; 200 each, four standard deviations are 55.
  assert max(abs(count - 200) for count in counts.values()) < 55


@pytest.mark.parametrize("probability", [0, 0.3, 1])
def test_a_patch_is_jittered_as_a_whole_or_not_at_all(probability):
  active = np.asarray(draw(probability=probability).active).reshape(-1, 4)
  assert (active == active[:, :1]).all()
  deviation = np.sqrt(probability * (1 - probability) / len(active))
  assert abs(active[:, 0].mean() - probability) <= 4 * deviation


def test_what_has_no_strength_does_not_happen():
  active = draw(strengths=(0.4, 0, 0.4, 0), probability=1).active
  np.testing.assert_array_equal(
    np.unique(active.reshape(-1, 4), axis=0), [[True, False, True, False]]
  )


@pytest.mark.parametrize(
  ("keywords", "message"),
  [
    ({"probability": 1.5}, "probability=1.5 must be from 0 to 1"),
    ({"strengths": (0.4, -1, 0, 0)}, "contrast=-1 must be at least 0"),
    (
      {"strengths": (0.4, 0.4, 0.4, 0.6)},
      "hue=0.6 must be from 0 to 0.5 turns",
    ),
  ],
)
def test_what_cannot_be_drawn_is_refused(keywords, message):
  with pytest.raises(ValueError, match=message):
    draw(**keywords)
