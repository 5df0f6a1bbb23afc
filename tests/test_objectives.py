"""Losses, on outputs small enough to compute by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relvit_jax import grid
from relvit_jax.training import metrics, objectives
from relvit_jax.training.localisation import Pairs

PERFECT = 50.0  # As a score it leaves no probability to the others.


def one_hot(classes, number):
  return PERFECT * np.eye(number, dtype=np.float32)[np.asarray(classes)]


def right_outputs(size, permutation, labels):
  """What a model would say that knows all answers."""
  relation = grid.permute_pairs(grid.relations(*size), permutation)
  return {
    "relation": jnp.moveaxis(jnp.asarray(one_hot(relation, 9)), -1, 1),
    "distance": jnp.asarray(
      grid.permute_pairs(grid.distances(*size), permutation)
    ),
    "angle": jnp.asarray(grid.permute_pairs(grid.angles(*size), permutation)),
    "position": jnp.asarray(one_hot(permutation, size[0] * size[1])),
    "label": jnp.asarray(one_hot(labels, 10)),
  }


def test_knowing_nothing_costs_the_logarithm_of_the_choices():
  outputs = {
    "relation": jnp.zeros((2, 9, 4, 4)),
    "position": jnp.zeros((2, 4, 4)),
    "label": jnp.zeros((2, 10)),
  }
  losses = objectives.losses(outputs, {"label": np.array([3, 7])}, (2, 2))
  expected = {"relation": np.log(9), "position": np.log(4), "label": np.log(10)}
  for task, value in expected.items():
    np.testing.assert_allclose(losses[task], value, rtol=1e-6)
  np.testing.assert_allclose(losses["total"], sum(expected.values()), rtol=1e-6)


def test_distance_and_angle_are_squared_errors():
  outputs = {
    "distance": jnp.asarray(grid.distances(2, 2))[None] + 0.5,
    "angle": jnp.asarray(grid.angles(2, 2))[None] - 2.0,
  }
  losses = objectives.losses(outputs, {}, (2, 2))
  np.testing.assert_allclose(losses["distance"], 0.25, rtol=1e-6)
  np.testing.assert_allclose(losses["angle"], 4.0, rtol=1e-6)


@settings(deadline=None, max_examples=5)
@given(st.tuples(st.integers(1, 4), st.integers(2, 4)), st.integers(0, 2**31))
def test_the_right_answers_cost_nothing_in_any_order(size, seed):
  random = np.random.default_rng(seed)
  order = np.stack([random.permutation(size[0] * size[1]) for _ in range(2)])
  labels = np.array([3, 7])
  outputs = right_outputs(size, order, labels)
  losses = objectives.losses(
    outputs, {"label": labels}, size, permutation=order
  )
  for task in outputs:
    np.testing.assert_allclose(losses[task], 0, atol=1e-6, err_msg=task)
  measured = metrics.measure(
    outputs, {"label": labels}, size, permutation=order
  )
  shares = {name: float(s / n) for name, (s, n) in measured.items()}
  assert shares["relation_accuracy"] == 1
  assert shares["position_accuracy"] == 1
  assert shares["label_top1"] == 1
  assert shares["distance_error"] < 1e-5


def test_the_identity_is_the_same_as_no_permutation():
  outputs = {
    task: jax.random.normal(jax.random.key(i), shape)
    for i, (task, shape) in enumerate(
      {
        "relation": (2, 9, 9, 9),
        "distance": (2, 9, 9),
        "angle": (2, 9, 9),
        "position": (2, 9, 9),
      }.items()
    )
  }
  identity = np.tile(np.arange(9), (2, 1))
  plain = objectives.losses(outputs, {}, (3, 3))
  permuted = objectives.losses(outputs, {}, (3, 3), permutation=identity)
  for task, loss in plain.items():
    np.testing.assert_allclose(permuted[task], loss, rtol=1e-6)


def test_weights_change_the_total_alone():
  outputs = {"relation": jnp.zeros((1, 9, 4, 4)), "label": jnp.zeros((1, 10))}
  losses = objectives.losses(
    outputs, {"label": np.array([0])}, (2, 2), weights={"relation": 0.5}
  )
  np.testing.assert_allclose(losses["relation"], np.log(9), rtol=1e-6)
  np.testing.assert_allclose(
    losses["total"], 0.5 * np.log(9) + np.log(10), rtol=1e-6
  )


def test_label_smoothing_spreads_the_target():
  scores = jnp.array([[2.0, 0.0, 1.0, -1.0]])
  log_p = jax.nn.log_softmax(scores)[0]
  losses = objectives.losses(
    {"label": scores}, {"label": np.array([1])}, (2, 2), label_smoothing=0.2
  )
  target = np.array([0.05, 0.85, 0.05, 0.05])
  np.testing.assert_allclose(
    losses["label"], -(target * log_p).sum(), rtol=1e-6
  )


def test_relation_smoothing_is_the_relations_own():
  outputs = right_outputs((2, 2), np.array([[0, 1, 2, 3]]), np.array([1]))
  losses = objectives.losses(
    outputs, {"label": np.array([1])}, (2, 2), relation_smoothing=0.1
  )
  assert losses["label"] < 1e-6
  np.testing.assert_allclose(
    losses["relation"], 0.1 * 8 / 9 * PERFECT, rtol=1e-5
  )


def test_relation_dropout_leaves_pairs_out_of_loss_and_gradient():
  scores = jax.random.normal(jax.random.key(0), (2, 9, 16, 16))

  def loss(scores):
    return objectives.losses(
      {"relation": scores},
      {},
      (4, 4),
      relation_dropout=0.25,
      key=jax.random.key(1),
    )["relation"]

  value, gradient = jax.value_and_grad(loss)(scores)
  answering = np.abs(gradient).max(axis=1) > 0
  assert 0.65 < answering.mean() < 0.85
  # The loss is the mean over those that answer.
  target = grid.relations(4, 4)
  entropy = -np.take_along_axis(
    np.asarray(jax.nn.log_softmax(scores, axis=1)),
    np.broadcast_to(target, (2, 1, 16, 16)),
    axis=1,
  )[:, 0]
  np.testing.assert_allclose(value, entropy[answering].mean(), rtol=1e-5)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"labels": {}}, "include label, but labels has only"),
    ({"weights": {"relations": 1.0}}, "weights names 'relations'"),
    ({"relation_dropout": 0.1}, "relation_dropout=0.1 needs a random key"),
    ({"label_smoothing": 7.0}, r"label_smoothing=7.0 must be in \[0, 1\)"),
    ({"outputs": {}}, "outputs is empty"),
    ({"outputs": {"depth": jnp.zeros((1, 4, 4))}}, "outputs names 'depth'"),
    ({"grid_size": (1, 1)}, r"relation output .* grid_size=\(1, 1\)"),
    (
      {"permutation": np.arange(4)},
      r"permutation of shape \(4,\) must be \[B, N\] = \(1, 4\)",
    ),
    (
      {"relation_dropout": 1.0, "key": jax.random.key(0)},
      r"relation_dropout=1.0 must be in \[0, 1\)",
    ),
  ],
)
def test_what_makes_no_sense_is_refused(options, message):
  outputs = {"relation": jnp.zeros((1, 9, 4, 4)), "label": jnp.zeros((1, 10))}
  defaults = {
    "outputs": outputs,
    "labels": {"label": np.array([0])},
    "grid_size": (2, 2),
  }
  with pytest.raises(ValueError, match=message):
    objectives.losses(**(defaults | options))


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_that_is_no_class_makes_the_loss_nan(label):
  outputs = {"label": jnp.zeros((2, 10))}
  losses = objectives.losses(outputs, {"label": np.array([0, label])}, (2, 2))
  assert np.isnan(losses["label"])


def test_narrow_labels_of_many_classes():
  scores = jax.random.normal(jax.random.key(0), (1, 300))
  wide, narrow = (
    objectives.losses({"label": scores}, {"label": np.array([7], t)}, (1, 1))
    for t in (np.int32, np.uint8)
  )
  assert wide["label"] == narrow["label"]


def test_lists_do_as_well_as_tuples_and_arrays():
  outputs = {"distance": jnp.zeros((1, 4, 4)), "angle": jnp.zeros((1, 4, 4))}
  order = [[3, 1, 0, 2]]
  listed = objectives.losses(outputs, {}, [2, 2], permutation=order)
  plain = objectives.losses(outputs, {}, (2, 2), permutation=np.array(order))
  assert listed["total"] == plain["total"]
  error, _ = metrics.measure(outputs, {}, [2, 2])["distance_error"]
  assert error > 0


def test_a_label_in_shares_costs_its_share_of_each_class():
  scores = jnp.array([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
  shares = jnp.array([[0.7, 0.0, 0.3], [0.0, 1.0, 0.0]])
  log_p = np.asarray(jax.nn.log_softmax(scores))
  loss = objectives.losses({"label": scores}, {"label": shares}, (2, 2))
  rows = -(0.7 * log_p[0, 0] + 0.3 * log_p[0, 2]), -log_p[1, 1]
  np.testing.assert_allclose(loss["label"], np.mean(rows), rtol=1e-6)
  # Whole shares are labels, smoothed or not.
  for smoothing in (0.0, 0.1):
    whole, hard = (
      objectives.losses(
        {"label": scores}, {"label": given}, (2, 2), label_smoothing=smoothing
      )["label"]
      for given in (jnp.eye(3)[jnp.array([2, 1])], np.array([2, 1]))
    )
    np.testing.assert_allclose(whole, hard, rtol=1e-6)


def test_labels_of_another_form_are_refused():
  with pytest.raises(
    ValueError, match=r"\(2, 4\) must be \[B\] or .* \(2, 3\)"
  ):
    objectives.losses(
      {"label": jnp.zeros((2, 3))}, {"label": np.zeros((2, 4))}, (2, 2)
    )


def test_drloc_is_asked_about_the_patches_that_are_shown():
  pairs = Pairs(jnp.array([[[0, 0]]]), jnp.array([[[1, 1]]]))
  outputs = {"drloc": jnp.array([[1.0, 1.0]])}
  plain = objectives.losses(outputs, {}, (2, 2), pairs=pairs)
  assert plain["drloc"] == plain["total"] == 0
  # Place 0 shows patch 1, and place 3 patch 0: one column apart, no row.
  moved = objectives.losses(
    outputs, {}, (2, 2), pairs=pairs, permutation=np.array([[1, 2, 3, 0]])
  )
  assert moved["drloc"] == 0.5
  with pytest.raises(ValueError, match="include drloc, but pairs is None"):
    objectives.losses(outputs, {}, (2, 2))


def test_drloc_leaves_padding_out():
  places = jnp.zeros((2, 3, 2), jnp.int32)
  prediction = jnp.concatenate([jnp.ones((3, 2)), jnp.full((3, 2), 9.0)])
  loss = objectives.losses(
    {"drloc": prediction},
    {},
    (2, 2),
    pairs=Pairs(places, places),
    weights={"drloc": jnp.float32(0.5)},
    mask=jnp.array([True, False]),
  )
  assert loss == {"drloc": 1, "total": 0.5}
