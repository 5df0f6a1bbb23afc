"""One training step: what it reports, and what it changes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tiny_models import create

from relvit_jax.data import mixing, views
from relvit_jax.training import model_arrays, objectives, optimizer, step


def batch():
  images = jax.random.randint(jax.random.key(1), (4, 8, 8, 3), 0, 256)
  return {
    "image": images.astype(jnp.uint8),
    "label": jnp.array([0, 1, 2, 3], jnp.int32),
  }


def make_training(rate=0.1, order=None, mixed=None, average=None, **sizes):
  """(jitted step, state, graphdef), with plain gradient descent."""
  tx = optax.sgd(rate)
  graphdef, _, _ = model_arrays.split_model(create(nnx.Rngs(0), **sizes))

  def objective(outputs, labels, permutation, **_):
    return objectives.losses(outputs, labels, (4, 4), permutation=permutation)

  def augment(keys, batch):
    images = batch["image"].astype(jnp.float32) / 255
    return views.Shown(images, order, mixed)

  train_step = step.make_train_step(
    graphdef, tx, objective, augment, (4, 4), average=average
  )
  init = step.make_init(
    lambda rngs: create(rngs, **sizes),
    model_arrays.split_model,
    tx,
    bool(average),
  )
  return jax.jit(train_step), jax.jit(init)(jax.random.key(0)), graphdef


@pytest.fixture(scope="module")
def training():
  return make_training()


def test_a_step_counts_and_lowers_the_loss(training):
  train_step, state, _ = training
  curve = []
  for _ in range(20):
    state, metrics = train_step(state, batch())
    value, count = metrics["loss_total"]
    curve.append(float(value / count))
  assert int(state.step) == 20
  assert curve[-1] < 0.9 * curve[0]


def test_metrics_are_those_of_the_state_before_the_step(training):
  train_step, state, graphdef = training
  model = model_arrays.merge_model(graphdef, state.params, state.fixed)
  outputs = model(batch()["image"].astype(jnp.float32) / 255)
  labels = {"label": batch()["label"]}
  expected = objectives.losses(outputs, labels, (4, 4))
  _, metrics = train_step(state, batch())
  assert set(metrics) == {
    "loss_relation",
    "loss_label",
    "loss_total",
    "relation_accuracy",
    "label_top1",
    "label_top5",
    "gradient_norm",
  }
  for task, loss in expected.items():
    value, count = metrics[f"loss_{task}"]
    assert count == 4
    np.testing.assert_allclose(value / count, loss, rtol=1e-5)


def test_targets_follow_the_permutation_that_augmentation_returns():
  order = np.random.default_rng(0).permuted(
    np.tile(np.arange(16), (4, 1)), axis=1
  )
  train_step, state, graphdef = make_training(order=jnp.asarray(order))
  model = model_arrays.merge_model(graphdef, state.params, state.fixed)
  outputs = model(batch()["image"].astype(jnp.float32) / 255)
  labels = {"label": batch()["label"]}
  told, silent = (
    objectives.losses(outputs, labels, (4, 4), permutation=permutation)
    for permutation in (order, None)
  )
  _, measured = train_step(state, batch())
  value, count = measured["loss_relation"]
  np.testing.assert_allclose(value / count, told["relation"], rtol=1e-5)
  assert abs(told["relation"] - silent["relation"]) > 1e-4


def test_every_step_has_noise_of_its_own():
  """With a rate of nothing only the noise can change the loss."""
  train_step, state, _ = make_training(rate=0.0, dropout_rate=0.5)
  losses = []
  for _ in range(3):
    state, measured = train_step(state, batch())
    losses.append(float(measured["loss_total"][0]))
  assert len(set(losses)) == 3


def test_the_step_follows_the_gradient(training):
  train_step, state, graphdef = training
  after, metrics = train_step(state, batch())
  moved = jax.tree.map(lambda a, b: (a - b) / 0.1, state.params, after.params)

  def loss(params):
    model = model_arrays.merge_model(graphdef, params, state.fixed)
    outputs = model(batch()["image"].astype(jnp.float32) / 255)
    labels = {"label": batch()["label"]}
    return objectives.losses(outputs, labels, (4, 4))["total"]

  gradients = jax.jit(jax.grad(loss))(state.params)
  for ours, theirs in zip(
    jax.tree.leaves(moved), jax.tree.leaves(gradients), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
  np.testing.assert_allclose(
    metrics["gradient_norm"][0], optax.tree.norm(gradients), rtol=1e-5
  )


def test_a_mixed_image_is_worth_its_share_of_both_labels():
  share = jnp.array([0.9, 0.6, 0.3, 1.0])
  mixed = mixing.Mixing(share, jnp.zeros(4, bool), jnp.zeros((4, 4), jnp.int32))
  train_step, state, graphdef = make_training(mixed=mixed)
  model = model_arrays.merge_model(graphdef, state.params, state.fixed)
  outputs = model(batch()["image"].astype(jnp.float32) / 255)
  log_p = np.asarray(jax.nn.log_softmax(outputs["label"]))
  own, partner = np.diag(log_p[:, :4]), np.diag(log_p[:, [1, 0, 3, 2]])
  expected = -np.mean(share * own + (1 - share) * partner)
  _, measured = train_step(state, batch())
  value, count = measured["loss_label"]
  np.testing.assert_allclose(value / count, expected, rtol=1e-5)
  # The pairs are asked as of any image.
  plain = make_training()[0](state, batch())[1]["loss_relation"]
  np.testing.assert_allclose(measured["loss_relation"], plain, rtol=1e-6)


def test_the_average_follows_the_weights_and_answers():
  train_step, state, _ = make_training(average=optimizer.averaging(0.5))
  chex.assert_trees_all_equal(state.average, state.params)
  history = [state.params]
  for _ in range(2):
    state, _ = train_step(state, batch())
    history.append(state.params)
  # A decay of 1/10 in step 0, and of 2/11 in step 1.
  expected = jax.tree.map(
    lambda a, b, c: 2 / 11 * (a / 10 + 9 * b / 10) + 9 / 11 * c, *history
  )
  chex.assert_trees_all_close(state.average, expected, rtol=1e-5)
  assert state.weights is state.average
  plain = make_training()[1]
  assert plain.average == {}
  assert plain.weights is plain.params
