"""A stage as a whole: one compilation, any number of devices, the same run."""

import dataclasses
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax import config
from relvit_jax.data import sources
from relvit_jax.training import (
  metrics,
  partitioning,
  repeating,
  stacking,
  step,
)
from relvit_jax.training.stage import Stage

SPLITS = sources.digits()


def make(name="digits:joint", devices=1, fsdp=1, **keys):
  settings = config.load(name)
  settings.num_steps = settings.eval_every = 40
  settings.steps_per_dispatch = 20
  settings.update_from_flattened_dict(keys)
  mesh = partitioning.make_mesh(fsdp, jax.devices()[:devices])
  return Stage(settings, SPLITS["train"], mesh)


def train(stage, state, count=20):
  """(state, losses of the next steps)."""
  words = np.asarray(step.order_words(state.key))
  data = stage.feed.block(words, int(state.step), count)
  state, metrics = stage.train_steps(state, data, np.int32(count))
  values, counts = jax.device_get(metrics["loss_total"])
  assert (counts[count:] == 0).all()
  return state, values[:count] / counts[:count]


def losses(stage, seed=0, counts=(20,)):
  state, curve = stage.init(seed), []
  for count in counts:
    state, more = train(stage, state, count)
    curve.append(more)
  return np.concatenate(curve)


def lowered(stage):
  """The training steps, as they are handed to the compiler."""
  state = jax.eval_shape(lambda: stage.init(0))
  data = stage.feed.block(np.zeros(2, np.uint32), 0, 1)
  return stage.train_steps.lower(state, data, np.int32(1))


@pytest.fixture(scope="module")
def stage():
  return make()


ALL_RANDOM = {
  "tasks": ("label", "relation", "distance", "angle", "position"),
  "augment.permute_patches": True,
  "model.dropout_rate": 0.1,
  "model.drop_path_rate": 0.1,
  "loss.relation_dropout": 0.1,
}


@pytest.fixture(scope="module")
def on_one_device():
  return losses(make(**ALL_RANDOM))


@pytest.mark.parametrize(
  "fsdp", [*(pytest.param(n, marks=pytest.mark.long) for n in (1, 2)), 8]
)
def test_eight_devices_learn_as_one(on_one_device, fsdp):
  """Every source of randomness on: the draws do not depend on the mesh."""
  eight = losses(make(devices=8, fsdp=fsdp, **ALL_RANDOM))
  np.testing.assert_allclose(eight, on_one_device, rtol=1e-6)


@pytest.mark.long
def test_blocks_of_pairs_learn_as_all_pairs_at_once(on_one_device):
  """On eight devices, in a loop over donated states: 16 patches by 3 rows."""
  blocks = make(devices=8, fsdp=2, **ALL_RANDOM, **{"loss.pair_block": 3})
  np.testing.assert_allclose(losses(blocks), on_one_device, rtol=1e-6)
  dense = make(**ALL_RANDOM)
  state = dense.init(0)
  ours, theirs = (
    stage.evaluate(state, SPLITS["test"])
    for stage in (make(**ALL_RANDOM, **{"loss.pair_block": 3}), dense)
  )
  assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.long
def test_devices_share_the_batch_and_exchange_gradients():
  stage = make(devices=8)
  state = stage.init(0)
  data = stage.feed.block(np.zeros(2, np.uint32), 0, 20)
  program = stage.train_steps.lower(state, data, np.int32(20))
  text = program.compile().as_text()
  assert "all-reduce" in text
  assert "all-gather" not in text
  # 32 images over 8 devices: attention of 4 images of 17 tokens, 2 heads.
  assert "f32[4,2,17,17]" in text
  assert "f32[32,2,17,17]" not in text


@pytest.mark.long
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


@pytest.mark.long
def test_training_and_evaluation_are_each_compiled_once(monkeypatch):
  # Both trace `measure`: training once, evaluation once, and never again.
  chex.clear_trace_counter()
  monkeypatch.setattr(
    metrics, "measure", chex.assert_max_traces(metrics.measure, n=2)
  )
  stage = make()
  for seed in (0, 1):
    state = stage.init(seed)
    for count in (20, 20, 7):  # The last dispatch may be a shorter one.
      state, _ = train(stage, state, count)
    for part in ("validation", "test"):  # 200 and 500 images, not of 128.
      stage.evaluate(state, SPLITS[part])
  # Nor is one traced program compiled again for another layout.
  assert stage.train_steps._cache_size() == 1


@pytest.mark.long
def test_the_state_is_donated(stage):
  state = stage.init(0)
  train(stage, state)
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


def test_where_dispatches_end_changes_no_bit(stage):
  once = losses(stage)
  np.testing.assert_array_equal(losses(stage, counts=(1, 12, 7)), once)


def test_a_program_for_each_length_trains_as_one_for_all(stage, monkeypatch):
  jit = repeating.jit
  monkeypatch.setattr(
    repeating, "jit", lambda function, _, **rest: jit(function, "gpu", **rest)
  )
  found = make()
  np.testing.assert_allclose(
    losses(found, counts=(8, 12)), losses(stage), rtol=1e-6
  )
  assert found.train_steps._cache_size() == 2


def test_nothing_adds_in_an_order_that_a_gpu_leaves_open():
  """As the gradient of a gather does, by which a run would not go on alike."""
  stage = make("digits:joint,drloc")
  traced = stage.train_steps.trace(
    stage.state_shapes, stage.feed.outline(), np.int32(1)
  )
  text = str(traced.jaxpr)
  assert "dot_general" in text
  assert "scatter-add" not in text


def test_dispatches_end_at_evaluations_and_at_the_end():
  stage = make(num_steps=50, eval_every=30)
  ends = [0]
  while ends[-1] < 50:
    ends.append(stage.block_end(ends[-1]))
  assert ends == [0, 15, 30, 50]


@pytest.mark.long
def test_a_stream_trains_as_the_resident_split_does(stage):
  streaming = make(**{"data.feed": "streaming"})
  np.testing.assert_allclose(
    losses(streaming, counts=(12, 8)), losses(stage), rtol=1e-6
  )


@pytest.mark.long
def test_a_frozen_backbone_stays_and_has_no_moments():
  stage = make("digits:supervised", freeze_backbone=True)
  state = stage.init(0)
  assert set(state.params) == {"heads"}
  assert set(state.fixed) == {"backbone"}
  before = jax.device_get(state.fixed)
  after, curve = train(stage, state)
  chex.assert_trees_all_equal(before, jax.device_get(after.fixed))
  assert curve[-1] < curve[0]
  # Two moments and the parameters of one linear layer; two counters.
  arrays = [leaf for leaf in jax.tree.leaves(after.opt_state) if leaf.ndim]
  assert len(arrays) == 4


def test_epochs_become_steps_as_in_the_paper():
  # 1,097 images in batches of 32 are 34.3 steps: an epoch has 35.
  stage = make(num_steps=None, num_epochs=3.0, eval_every=None)
  assert (stage.num_steps, stage.eval_every) == (105, 35)


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    ({"batch_size": 20}, "batch_size=20 must be a multiple of the 8 devices"),
    ({"eval_batch_size": 12}, "eval_batch_size=12 must be a multiple"),
    ({"batch_size": 0}, "batch_size=0 must be a multiple .* such as 8"),
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
  "data.mean": (0.5, 0.5, 0.5),
  "data.std": (0.5, 0.5, 0.5),
}


def program(**keys):
  """The training steps as they are handed to the compiler."""
  return lowered(make(**(TINY | keys))).as_text()


@pytest.fixture(scope="module")
def tiny_program():
  return program()


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("batch_size", 16),
    ("data.mean", (0.1, 0.2, 0.3)),
    ("data.std", (0.1, 0.2, 0.3)),
    ("augment.crop", "none"),
    ("augment.crop", "resized"),
    ("augment.crop_padding", 2),
    ("augment.flip", 0.5),
    ("augment.mega_patches", 3),
    ("augment.patch_crop", 2.0),
    ("augment.patch_jitter", 0.5),
    ("augment.patch_grey", 0.5),
    ("augment.repeats", 2),
    ("augment.rand_augment", 1),
    ("augment.erasing", 0.5),
    ("augment.mixup_alpha", 0.8),
    ("augment.cutmix_alpha", 1.0),
    ("augment.permute_patches", True),
    ("model.patch_size", 4),
    ("model.pos_embed", False),
    ("model.cls_token", False),
    ("model.cls_to_patches", True),
    ("model.pos_embed_type", "sinusoidal"),
    ("model.attention_mask", "diagonal"),
    ("model.qkv_bias", False),
    ("model.dropout_rate", 0.1),
    ("model.attention_dropout_rate", 0.1),
    ("model.drop_path_rate", 0.5),
    ("model.dtype", "bfloat16"),
    ("model.attention", "xla"),
    ("model.recompute_gelu", True),
    ("model.block_kernels", True),
    ("model.scan_layers", True),
    ("loss.weights.relation", 0.5),
    ("loss.weights.position", 0.5),
    ("loss.weights.label", 0.5),
    ("loss.label_smoothing", 0.1),
    ("loss.relation_smoothing", 0.1),
    ("loss.relation_dropout", 0.1),
    ("loss.pair_block", 3),
    ("optimizer.lr", 1e-2),
    ("optimizer.end_lr", 1e-1),
    ("optimizer.weight_decay", 10.0),
    ("optimizer.clip_norm", 1e-9),
    ("optimizer.schedule", "cosine"),
    ("optimizer.decay_all", False),
    ("optimizer.ema_decay", 0.9),
    ("tasks", ("label", "relation")),
    ("tasks", ("label", "relation", "position", "drloc")),
    ("num_steps", 40),
    ("steps_per_dispatch", 4),
  ],
)
def test_every_key_reaches_the_training_steps(tiny_program, key, value):
  assert program(**{key: value}) != tiny_program


def test_where_it_pays_vectors_of_one_length_move_on_at_once(monkeypatch):
  """AdamW has one square root for every array that it moves."""
  monkeypatch.setattr(stacking, "pays", lambda platform: True)
  leaves = jax.tree.leaves(make(**TINY).state_shapes.params)
  lengths = {len(leaf) for leaf in leaves if leaf.ndim == 1}
  others = [leaf for leaf in leaves if leaf.ndim != 1]
  roots = re.findall(r"stablehlo.sqrt %\w+ : tensor<\d", program())
  assert len(roots) == len(others) + len(lengths)
  assert len(leaves) > len(others) + 3 * len(lengths)


def test_and_learn_the_same(monkeypatch):
  keys = TINY | {"optimizer.ema_decay": 0.9}

  def trained():
    stage = make(**keys)
    state, curve = train(stage, stage.init(0), 2)
    state, more = train(stage, state, 2)
    return jax.tree.map(jnp.shape, state), [*curve, *more]

  shapes, curve = trained()
  monkeypatch.setattr(stacking, "pays", lambda platform: True)
  stacked, again = trained()
  np.testing.assert_allclose(again, curve, rtol=1e-6)
  assert stacked == shapes


def test_equal_keys_make_equal_training_steps(tiny_program):
  assert program(batch_size=8) == tiny_program


STRONG = {
  "augment.mixup_alpha": 0.8,
  "augment.cutmix_alpha": 1.0,
  "optimizer.schedule": "cosine",
  "optimizer.ema_decay": 0.9,
  "tasks": ("label", "drloc"),
}


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("augment.mixup_alpha", 0.2),
    ("augment.cutmix_alpha", 0.2),
    ("augment.mix_probability", 0.5),
    ("augment.cutmix_share", 0.1),
    ("optimizer.warmup_share", 0.5),
    ("optimizer.warmup_lr", 1e-4),
    ("optimizer.ema_decay", 0.5),
    ("loss.weights.drloc", 0.7),
    ("loss.drloc.num_pairs", 5),
    ("loss.drloc.mode", "ce"),
    ("loss.drloc.mode", "cbr"),
    ("loss.drloc.use_abs", False),
    ("loss.drloc.normalise_targets", True),
    ("loss.drloc.warmup_share", 0.5),
  ],
)
def test_every_key_of_the_recipe_reaches_them_too(strong_program, key, value):
  assert program(**(STRONG | {key: value})) != strong_program


@pytest.fixture(scope="module")
def strong_program():
  return program(**STRONG)


def test_how_strong_rand_augment_is_reaches_them():
  keys = {"augment.rand_augment": 1}
  whole = program(**keys)
  for key, value in (("magnitude", 1.0), ("deviation", 0.0)):
    assert program(**keys, **{f"augment.rand_{key}": value}) != whole


@pytest.mark.long
def test_with_an_average_it_is_what_is_evaluated():
  stage = make(**{"optimizer.ema_decay": 0.9})
  state, _ = train(stage, stage.init(0))
  ours = stage.evaluate(state, SPLITS["validation"])
  last = dataclasses.replace(state, average=state.params)
  assert ours != stage.evaluate(last, SPLITS["validation"])
  kernel = stage.model(state).heads["label"].proj.kernel[...]
  np.testing.assert_array_equal(
    kernel, state.average["heads"]["label"]["proj"]["kernel"]
  )


@pytest.mark.long
def test_drloc_is_learnt_beside_the_labels():
  stage = make("digits:supervised,drloc", **{"loss.weights.drloc": 1.0})
  state = stage.init(0)
  before = stage.evaluate(state, SPLITS["validation"])
  for _ in range(2):
    state, _ = train(stage, state)
  after = stage.evaluate(state, SPLITS["validation"])
  assert set(after) == {
    "label_top1",
    "label_top5",
    "drloc_error",
    "loss_label",
    "loss_drloc",
    "loss_total",
  }
  assert after["drloc_error"] < 0.9 * before["drloc_error"]
  assert after["loss_label"] < before["loss_label"]
