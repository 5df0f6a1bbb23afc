"""A stage as a whole: one compilation, any number of devices, the same run."""

import chex
import jax
import numpy as np
import pytest

from relvit_jax import config
from relvit_jax.data import sources
from relvit_jax.training import metrics, partitioning
from relvit_jax.training.stage import Stage

SPLITS = sources.digits()


def make(name="digits:joint", devices=1, fsdp=1, **keys):
  settings = config.load(name)
  settings.num_steps = settings.eval_every = 40
  settings.steps_per_dispatch = 20
  settings.update_from_flattened_dict(keys)
  mesh = partitioning.make_mesh(fsdp, jax.devices()[:devices])
  return Stage(settings, SPLITS, mesh)


def losses(stage, seed=0, dispatches=1):
  state, curve = stage.init(seed), []
  for _ in range(dispatches):
    state, metrics = stage.train_steps(state, stage.train_data)
    value, count = jax.device_get(metrics["loss_total"])
    curve.append(value / count)
  return np.concatenate(curve)


@pytest.fixture(scope="module")
def stage():
  return make()


ALL_RANDOM = {
  "tasks": ("label", "relation", "distance", "angle", "position"),
  "data.permute_patches": True,
  "model.dropout_rate": 0.1,
  "model.drop_path_rate": 0.1,
  "loss.relation_dropout": 0.1,
}


@pytest.fixture(scope="module")
def on_one_device():
  return losses(make(**ALL_RANDOM))


@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_eight_devices_learn_as_one(on_one_device, fsdp):
  """Every source of randomness on: the draws do not depend on the mesh."""
  eight = losses(make(devices=8, fsdp=fsdp, **ALL_RANDOM))
  np.testing.assert_allclose(eight, on_one_device, rtol=1e-6)


def test_devices_share_the_batch_and_exchange_gradients():
  stage = make(devices=8)
  state = stage.init(0)
  text = stage.train_steps.lower(state, stage.train_data).compile().as_text()
  assert "all-reduce" in text
  assert "all-gather" not in text
  # 32 images over 8 devices: attention of 4 images of 17 tokens, 2 heads.
  assert "f32[4,2,17,17]" in text
  assert "f32[32,2,17,17]" not in text


def test_with_fsdp_parameters_and_moments_are_spread():
  state = make(devices=8, fsdp=8).init(0)
  kernels = [
    leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    if partitioning.path_name(path).endswith("fc1/kernel")
  ]
  assert len(kernels) == 2 * 3  # Two blocks; weight and two moments.
  for kernel in kernels:
    assert kernel.addressable_shards[0].data.shape == (4, 128)


def test_training_and_evaluation_are_each_compiled_once(monkeypatch):
  # Both trace `measure`: training once, evaluation once, and never again.
  chex.clear_trace_counter()
  monkeypatch.setattr(
    metrics, "measure", chex.assert_max_traces(metrics.measure, n=2)
  )
  stage = make()
  for seed in (0, 1):
    state = stage.init(seed)
    for _ in range(3):
      state, _ = stage.train_steps(state, stage.train_data)
    for part in ("validation", "test"):  # 200 and 500 images, not of 128.
      stage.evaluate(state, SPLITS[part])
  # Nor is one traced program compiled again for another layout.
  assert stage.train_steps._cache_size() == 1


def test_the_state_is_donated(stage):
  state = stage.init(0)
  stage.train_steps(state, stage.train_data)
  with pytest.raises((RuntimeError, ValueError), match=r"deleted|donated"):
    np.asarray(state.params["backbone"]["norm"]["scale"])


def test_the_seed_decides_the_run(stage):
  np.testing.assert_array_equal(losses(stage, seed=3), losses(stage, seed=3))
  assert not np.allclose(losses(stage, seed=3), losses(stage, seed=4))


def test_state_is_a_pure_tree_of_arrays(stage):
  state = stage.init(0)
  for leaf in jax.tree.leaves(state):
    assert isinstance(leaf, jax.Array)
  structure = jax.tree.structure(state.params)
  assert "nnx" not in str(structure)
  shapes = jax.eval_shape(lambda s: s, state)
  chex.assert_trees_all_equal_shapes_and_dtypes(state, shapes)


def test_shorter_dispatches_take_the_same_steps(stage):
  small = make(steps_per_dispatch=10)
  np.testing.assert_allclose(
    losses(small, dispatches=2), losses(stage), rtol=1e-6
  )


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    ({"batch_size": 20}, "batch_size=20 must be a multiple of the 8 devices"),
    ({"eval_batch_size": 12}, "eval_batch_size=12 must be a multiple"),
    ({"batch_size": 0}, "batch_size=0 must be a multiple .* such as 8"),
    ({"num_steps": 50}, "num_steps=50 must be a multiple of .*=20"),
    ({"eval_every": 30}, "eval_every=30 must be a multiple of .*=20"),
    ({"steps_per_dispatch": 0}, "steps_per_dispatch=0 must be at least 1"),
    ({"optimizer.lr": -1.0}, "base_lr=-1.0 .* must not be negative"),
    ({"optimizer.clip_norm": 0.0}, "clip_norm=0.0 must be positive"),
  ],
)
def test_what_does_not_divide_is_refused(keys, message):
  with pytest.raises(ValueError, match=message):
    make(devices=8, **keys)


TINY = {
  "num_steps": 4,
  "steps_per_dispatch": 2,
  "eval_every": 4,
  "batch_size": 8,
  "model.embed_dim": 12,
  "model.depth": 2,
  "optimizer.end_lr": 1e-3,
}


def program(**keys):
  """The training steps as they are handed to the compiler."""
  stage = make(**(TINY | keys))
  state = jax.eval_shape(lambda: stage.init(0))
  return stage.train_steps.lower(state, stage.train_data).as_text()


@pytest.fixture(scope="module")
def tiny_program():
  return program()


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("batch_size", 16),
    ("data.crop_padding", 2),
    ("data.permute_patches", True),
    ("model.patch_size", 4),
    ("model.pos_embed", False),
    ("model.cls_token", False),
    ("model.dropout_rate", 0.1),
    ("model.attention_dropout_rate", 0.1),
    ("model.drop_path_rate", 0.5),
    ("loss.weights.relation", 0.5),
    ("loss.weights.position", 0.5),
    ("loss.weights.label", 0.5),
    ("loss.label_smoothing", 0.1),
    ("loss.relation_smoothing", 0.1),
    ("loss.relation_dropout", 0.1),
    ("optimizer.lr", 1e-2),
    ("optimizer.end_lr", 1e-1),
    ("optimizer.weight_decay", 10.0),
    ("optimizer.clip_norm", 1e-9),
    ("tasks", ("label", "relation")),
    ("num_steps", 40),
    ("steps_per_dispatch", 4),
  ],
)
def test_every_key_reaches_the_training_steps(tiny_program, key, value):
  assert program(**{key: value}) != tiny_program


def test_equal_keys_make_equal_training_steps(tiny_program):
  assert program(batch_size=8) == tiny_program
