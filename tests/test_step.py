"""One training step: what it reports, and what it changes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import relvit_jax
from relvit_jax.training import objectives, step


def create(rngs):
  return relvit_jax.create_model(
    "vit",
    image_size=8,
    patch_size=2,
    tasks=("relation", "label"),
    num_classes=10,
    embed_dim=12,
    depth=1,
    num_heads=2,
    rngs=rngs,
  )


def batch():
  images = jax.random.randint(jax.random.key(1), (4, 8, 8, 3), 0, 256)
  return {
    "image": images.astype(jnp.uint8),
    "label": jnp.array([0, 1, 2, 3], jnp.int32),
  }


@pytest.fixture
def training():
  rule = optax.sgd(0.1)
  structure, _, _ = step.split_model(create(nnx.Rngs(0)))

  def objective(outputs, labels, permutation, key):
    return objectives.losses(outputs, labels, (4, 4), permutation=permutation)

  def augment(key, images):
    return images.astype(jnp.float32) / 255, None

  train_step = step.make_train_step(structure, rule, objective, augment, (4, 4))
  state = jax.jit(step.make_init(create, rule))(jax.random.key(0))
  return jax.jit(train_step), state, structure


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
  train_step, state, structure = training
  model = step.merge_model(structure, state.params, state.fixed)
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


def test_the_step_follows_the_gradient(training):
  train_step, state, _ = training
  after, metrics = train_step(state, batch())
  moved = jax.tree.map(lambda a, b: (a - b) / 0.1, state.params, after.params)
  np.testing.assert_allclose(
    optax.tree.norm(moved), metrics["gradient_norm"][0], rtol=1e-4
  )


def test_split_and_merge_are_inverse():
  model = create(nnx.Rngs(0))
  structure, params, fixed = step.split_model(model)
  images = jnp.ones((1, 8, 8, 3))
  merged = step.merge_model(structure, params, fixed)
  np.testing.assert_array_equal(merged(images)["label"], model(images)["label"])
  assert fixed == {}
