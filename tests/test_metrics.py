"""Metrics, on outputs small enough to count by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax import grid
from relvit_jax.training import metrics
from relvit_jax.training.localisation import Pairs


def one_hot(classes, number):
  return np.eye(number, dtype=np.float32)[np.asarray(classes)]


def test_half_right_relations_and_positions_count_half():
  position = one_hot([0, 1, 3, 2], 4)[None]  # The lower two are exchanged.
  relation = one_hot(grid.relations(2, 2), 9)
  relation[2:] = 0  # For the lower two, "up_left" for everything.
  measured = metrics.measure(
    {
      "position": jnp.asarray(position),
      "relation": jnp.moveaxis(jnp.asarray(relation), -1, 0)[None],
    },
    {},
    (2, 2),
  )
  assert measured["position_accuracy"] == (0.5, 1)
  assert measured["relation_accuracy"] == (0.5, 1)


def test_distance_error_is_in_patches():
  outputs = {"distance": jnp.asarray(grid.distances(4, 4))[None] + 0.5}
  error, count = metrics.measure(outputs, {}, (4, 4))["distance_error"]
  # The scaled range of 2 stands for the √18 patches from corner to corner.
  np.testing.assert_allclose(error / count, 0.5 * np.sqrt(18) / 2, rtol=1e-5)


def test_top1_and_top5_give_nothing_for_a_tie_or_nan():
  scores = jnp.array(
    [
      [9.0, 8, 7, 6, 5, 4],  # Label 0 is first.
      [4.0, 5, 6, 7, 8, 9],  # Label 0 is last.
      [5.0, 9, 8, 7, 6, 4],  # Label 0 is fifth.
      [1.0, 1, 1, 1, 1, 1],
      [np.nan, 1, 1, 1, 1, 1],
    ]
  )
  measured = metrics.measure(
    {"label": scores}, {"label": np.zeros(5, int)}, (2, 2)
  )
  assert measured["label_top1"] == (1, 5)
  assert measured["label_top5"] == (2, 5)


@pytest.mark.parametrize(
  ("label", "num_classes"), [(-1, 10), (10, 10), (-1, 3), (3, 3)]
)
def test_a_label_that_is_no_class_is_never_right(label, num_classes):
  scores = jnp.asarray(one_hot([num_classes - 1], num_classes))
  measured = metrics.measure({"label": scores}, {"label": [label]}, (2, 2))
  assert measured["label_top1"] == measured["label_top5"] == (0, 1)


def test_the_mask_leaves_padding_out():
  scores = jnp.asarray(one_hot([0, 0, 0], 10))
  measured = metrics.measure(
    {"label": scores},
    {"label": np.array([0, 1, 0])},
    (2, 2),
    mask=np.array([True, True, False]),
  )
  assert measured["label_top1"] == (1, 2)


def test_chance_on_8x8_patches():
  chance = metrics.chance(
    ("relation", "position", "label", "distance", "angle"), (8, 8), 10
  )
  assert round(100 * chance["relation_accuracy"], 1) == 19.1
  assert chance["position_accuracy"] == 1 / 64
  assert chance["label_top1"] == 0.1
  assert chance["label_top5"] == 0.5
  # No constant answer has a smaller mean absolute error than the median.
  values = grid.distances(8, 8)
  errors = [np.abs(values - c).mean() for c in np.linspace(-1, 1, 201)]
  assert chance["distance_error"] <= min(errors) * np.sqrt(98) / 2 + 1e-6


def test_sums_of_batches_and_of_dispatches_are_divided_once():
  batches = [
    {"a": (np.float32(1), np.float32(4))},
    {"a": (np.array([2.0, 3.0]), np.array([4.0, 4.0]))},
  ]
  assert metrics.means(batches) == {"a": 0.5}


def test_nothing_to_evaluate_is_refused():
  with pytest.raises(ValueError, match="no batches"):
    metrics.means([])


@pytest.mark.parametrize("tasks", [("label",), ("label", "position")])
def test_chance_of_labels_needs_their_number(tasks):
  with pytest.raises(ValueError, match="num_classes=None: the label task"):
    metrics.chance(tasks, (2, 2))


def test_of_a_label_in_shares_the_larger_one_counts():
  scores = jnp.asarray(one_hot([2, 2, 1], 3))
  shares = jnp.array([[0.4, 0.0, 0.6], [0.6, 0.0, 0.4], [np.nan] * 3])
  measured = metrics.measure({"label": scores}, {"label": shares}, (2, 2))
  assert measured["label_top1"] == (1, 3)


def test_drloc_error_is_in_patches():
  pairs = Pairs(jnp.array([[[0, 0], [3, 1]]]), jnp.array([[[2, 1], [3, 1]]]))
  outputs = {"drloc": jnp.array([[2.0, 1.5], [0.0, 1.0]])}
  measured = metrics.measure(outputs, {}, (4, 4), pairs=pairs)
  assert measured["drloc_error"] == (0.375, 1)
  assert metrics.chance(["drloc"], (4, 4)) == {"drloc_error": 0.75}
