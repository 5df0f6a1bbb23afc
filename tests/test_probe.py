"""Frozen features: neighbours vote, and a line separates."""

import numpy as np
import pytest

from relvit_jax.training import probe
from relvit_jax.training.probe import Features


def features(values, labels):
  return Features(np.array(values, np.float32), np.array(labels))


COMPASS = features([[1, 0], [0, 1], [-1, 0], [0, -1]], [0, 1, 2, 3])


def test_the_nearest_by_angle_decides():
  asked = features([[9, 1], [0.1, 0.2], [-3, 2], [0.2, -4]], [0, 1, 2, 3])
  assert probe.knn_accuracy(COMPASS, asked, 4, neighbours=1) == 1
  wrong = asked._replace(labels=np.array([0, 1, 3, 2]))
  assert probe.knn_accuracy(COMPASS, wrong, 4, neighbours=1) == 0.5


def test_near_votes_weigh_more_the_lower_the_temperature():
  # One neighbour of class 0 at 10°, two of class 1 at 40°.
  angles = np.deg2rad([10, 40, -40])
  train = features(np.stack([np.cos(angles), np.sin(angles)], -1), [0, 1, 1])
  asked = features([[1, 0]], [0])
  # cos 10° - cos 40° = 0.219: its vote wins if exp(0.219 / T) > 2, T < 0.316.
  assert probe.knn_accuracy(train, asked, 2, 3, temperature=0.3) == 1
  assert probe.knn_accuracy(train, asked, 2, 3, temperature=0.33) == 0


def test_votes_do_not_overflow_at_low_temperatures():
  assert probe.knn_accuracy(COMPASS, COMPASS, 4, 4, temperature=1e-3) == 1


def test_more_queries_than_fit_in_one_comparison():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 4, 1_100)
  noise = rng.normal(0, 0.1, (1_100, 2))
  asked = features(COMPASS.values[labels] + noise, labels)
  assert probe.knn_accuracy(COMPASS, asked, 4, 1) > 0.999


@pytest.mark.parametrize(
  ("neighbours", "temperature", "message"),
  [
    (5, 0.07, "neighbours=5 must be from 1 to the 4 training images"),
    (0, 0.07, "neighbours=0 must be from 1"),
    (1, 0.0, "temperature=0.0 must be more than 0"),
  ],
)
def test_what_cannot_vote_is_refused(neighbours, temperature, message):
  with pytest.raises(ValueError, match=message):
    probe.knn_accuracy(COMPASS, COMPASS, 4, neighbours, temperature)


def test_a_line_separates_whatever_the_scale_of_a_feature():
  rng = np.random.default_rng(0)
  values = rng.normal(size=(400, 3)) * [1, 1e3, 1e-3] + [0, 5e3, 0]
  labels = (values[:, 2] > 0).astype(int)
  train, test = (
    features(values[part], labels[part])
    for part in (slice(0, 300), slice(300, 400))
  )
  assert probe.linear_accuracy(train, test) > 0.95
