"""A state comes back bit for bit, or not at all."""

import json
import logging
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

import relvit_jax
from relvit_jax.training import checkpoint, partitioning
from relvit_jax.training.checkpoint import Checkpoints
from relvit_jax.training.model_arrays import merge_model, split_model
from relvit_jax.training.step import TrainState

OPTIMIZER = optax.adamw(1e-3)


def make(
  step=1, devices=8, seed=0, width=4, impl="threefry2x32", averaged=False
):
  """A state with every kind of leaf, spread over the devices."""
  random = np.random.default_rng(seed)
  params = {
    "backbone": {
      "blocks": {
        i: {"w": jnp.asarray(random.normal(size=(8, width)))} for i in (0, 1)
      },
      "half": jnp.asarray(random.normal(size=(8,)), jnp.bfloat16),
    },
    # What only a comparison of bits tells apart.
    "odd": jnp.array([np.nan, -0.0, 0.0, np.inf, 1e-45, 1, 2, 3], jnp.float32),
  }
  state = TrainState(
    step=jnp.asarray(step, jnp.int32),
    key=jax.random.key(seed, impl=impl),
    params=params,
    fixed={"table": jnp.arange(16, dtype=jnp.int32).reshape(8, 2)},
    opt_state=OPTIMIZER.init(params),
    average=jax.tree.map(lambda leaf: leaf + 1, params) if averaged else {},
  )
  return spread(state, devices)


def spread(state, devices):
  mesh = partitioning.make_mesh(devices, jax.devices()[:devices])

  def place(leaf):
    spec = PartitionSpec("fsdp") if leaf.ndim else PartitionSpec()
    return jax.device_put(leaf, NamedSharding(mesh, spec))

  return jax.tree.map(place, state)


def bits(tree):
  def plain(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return str(leaf.dtype), np.asarray(jax.random.key_data(leaf)).tobytes()
    return str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()

  return jax.tree.map(plain, tree, is_leaf=lambda x: hasattr(x, "dtype"))


def save(folder, *states, metrics=None, **options):
  metrics = metrics or [{}] * len(states)
  with Checkpoints(folder / "checkpoints", **options) as checkpoints:
    for state, measured in zip(states, metrics, strict=True):
      checkpoints.save(
        int(state.step), state, metrics=measured, meta={"of": int(state.step)}
      )
  return folder / "checkpoints"


def kept(folder):
  return sorted(
    int(path.name) for path in folder.iterdir() if path.name.isdecimal()
  )


@pytest.mark.parametrize("devices", [8, 4, 1])
def test_a_state_comes_back_bit_for_bit_on_any_devices(tmp_path, devices):
  state = make(devices=8)
  save(tmp_path, state)
  like = make(step=0, seed=9, devices=devices)
  shapes = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=leaf.sharding
    ),
    like,
  )
  for template in (like, shapes):
    restored = checkpoint.restore(tmp_path, template)
    assert bits(restored) == bits(state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for leaf, wanted in zip(
      jax.tree.leaves(restored), jax.tree.leaves(like), strict=True
    ):
      assert leaf.sharding == wanted.sharding


def test_a_state_that_is_evaluated_later_may_be_the_best(tmp_path):
  """A run that was stopped before it had evaluated what it saved."""
  rule = {"best": ("top1", "max"), "keep": 1}
  folder = save(tmp_path, make(1), make(2), metrics=[{"top1": 3.0}, {}], **rule)
  assert checkpoint.find(tmp_path, "best")[1] == 1
  assert not checkpoint.is_evaluated(tmp_path, 2)
  with Checkpoints(folder, **rule) as checkpoints:
    checkpoints.evaluated(2, {"top1": 4.0})
    assert checkpoints.best_step == 2
    checkpoints.save(3, make(3), metrics={"top1": 2.0}, meta={})
  assert checkpoint.is_evaluated(tmp_path, 2)
  assert checkpoint.find(tmp_path, "best")[1] == 2
  assert kept(folder) == [2, 3]


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_every_kind_of_key_draws_on(tmp_path, impl):
  state = make(impl=impl)
  save(tmp_path, state)
  restored = checkpoint.restore(tmp_path, make(seed=1, impl=impl))
  assert restored.key.dtype == state.key.dtype
  np.testing.assert_array_equal(
    jax.random.uniform(restored.key), jax.random.uniform(state.key)
  )
  with pytest.raises(ValueError, match=r"key is key<\w+>\[\] there, wanted"):
    checkpoint.restore(tmp_path, make())


def test_a_saved_state_may_be_donated_at_once(tmp_path):
  def change(state):
    return jax.tree.map(
      lambda leaf: leaf + 1 if leaf.dtype == jnp.float32 else leaf,
      state.replace(step=state.step + 1),
    )

  change = jax.jit(change, donate_argnums=0)
  state, expected = make(width=40_000), {}
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    for number in (1, 2, 3):
      expected[number] = bits(jax.tree.map(jnp.copy, state))
      checkpoints.save(number, state, metrics={}, meta={})
      state = change(state)
      # Into whose memory a next step would write.
      change(jax.tree.map(jnp.copy, state))
  for number, before in expected.items():
    like = make(width=40_000)
    assert bits(checkpoint.restore(tmp_path, like, number)) == before


@pytest.mark.long
def test_the_weights_alone_make_the_model_again(tmp_path):
  settings = {
    "backbone": "vit", "image_size": 8, "patch_size": 4, "embed_dim": 18,
    "depth": 1, "num_heads": 2, "tasks": ["label"],
    "num_classes": 3,
  }  # fmt: skip

  def create(seed):
    return relvit_jax.create_model(**settings, rngs=nnx.Rngs(seed))

  graphdef, params, fixed = split_model(create(0))
  state = TrainState(
    step=jnp.int32(5),
    key=jax.random.key(0),
    params=params,
    fixed=fixed,
    opt_state=OPTIMIZER.init(params),
  )
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(5, state, metrics={}, meta={"model": settings})
  meta, *weights = checkpoint.read(tmp_path)
  assert meta == {"model": settings}
  assert checkpoint.read_meta(tmp_path) == meta
  for leaf in jax.tree.leaves(weights):
    assert isinstance(leaf, np.ndarray)
  images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)))
  again = merge_model(graphdef, *weights)(images)
  for task, output in create(0)(images).items():
    np.testing.assert_array_equal(again[task], output)


def test_of_a_run_with_an_average_the_average_is_read(tmp_path):
  state = make(averaged=True)
  save(tmp_path, state)
  assert bits(checkpoint.restore(tmp_path, make(averaged=True))) == bits(state)
  _, params, fixed = checkpoint.read(tmp_path)
  assert bits(params) == bits(state.average)
  assert bits(fixed) == bits(state.fixed)
  with pytest.raises(ValueError, match=r"not wanted: average/"):
    checkpoint.restore(tmp_path, make())


def test_the_newest_is_restored_unless_another_is_named(tmp_path):
  states = [make(step, seed=step) for step in (10, 20)]
  folder = save(tmp_path, *states, keep=2)
  assert bits(checkpoint.restore(folder, make())) == bits(states[1])
  assert bits(checkpoint.restore(folder, make(), 10)) == bits(states[0])
  assert bits(checkpoint.restore(folder / "10", make())) == bits(states[0])
  assert checkpoint.read_meta(folder) == {"of": 20}


@pytest.mark.parametrize(
  ("mode", "values", "best"),
  [
    ("max", [1.0, 3.0, 2.0, 0.0], 2),
    ("min", [1.0, 3.0, 2.0, 4.0], 1),
    ("max", [1.0, 3.0, 3.0, 0.0], 2),  # Of equals the earliest.
    ("max", [float("nan"), 1.0, float("nan"), float("nan")], 2),
    ("min", [float("inf"), float("nan"), 2.0, 3.0], 3),
    ("max", [2.0, None, None, 1.0], 1),  # Not evaluated in between.
    ("max", [float("nan"), None, None, None], None),
  ],
)
def test_the_last_and_the_best_are_kept(tmp_path, mode, values, best):
  metrics = [{} if value is None else {"top1": value} for value in values]
  states = [make(step) for step in (1, 2, 3, 4)]
  folder = tmp_path / "checkpoints"
  # In two runs: what was the best is known again from the files.
  for part in (slice(0, 2), slice(2, 4)):
    save(tmp_path, *states[part], metrics=metrics[part], best=("top1", mode))
  assert kept(folder) == sorted({best, 4} - {None})
  with Checkpoints(folder, best=("top1", mode)) as checkpoints:
    assert checkpoints.last_step == 4
    assert checkpoints.best_step == best
  if best:
    assert checkpoint.find(folder, "best")[1] == best
    assert bits(checkpoint.restore(folder, make(), best)) == bits(make(best))


def test_an_empty_folder_has_no_steps(tmp_path):
  with Checkpoints(tmp_path / "new", best=("top1", "max")) as checkpoints:
    assert checkpoints.last_step is None
    assert checkpoints.best_step is None


def wrong_dtype(state):
  state.params["odd"] = state.params["odd"].astype(jnp.bfloat16)


def wrong_shape(state):
  state.params["backbone"]["blocks"][1]["w"] = jnp.zeros((8, 5))


def missing(state):
  del state.params["odd"]


def extra(state):
  state.fixed["mask"] = jnp.zeros((2,))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (wrong_dtype, r"params/odd is float32\[8\] there, wanted bfloat16\[8\]"),
    (wrong_shape, r"blocks/1/w is float32\[8, 4\] there, wanted float32\[8, 5"),
    (missing, r"not wanted: params/odd float32\[8\]"),
    (extra, r"missing there: fixed/mask float32\[2\]"),
  ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
  save(tmp_path, make())
  like = make()
  change(like)
  with pytest.raises(ValueError, match=message):
    checkpoint.restore(tmp_path, like)


def test_another_optimiser_is_refused(tmp_path):
  save(tmp_path, make())
  like = make()
  like = like.replace(opt_state=optax.sgd(0.1, momentum=0.9).init(like.params))
  with pytest.raises(ValueError, match="missing there: opt_state/0/trace"):
    checkpoint.restore(tmp_path, spread(like, 8))


@pytest.mark.long
def test_damage_is_noticed(tmp_path):
  """Bits flipped, files cut or gone: an error, or nothing is lost."""
  state = make(devices=1)
  folder = save(tmp_path / "whole", state)
  meta, params, fixed = checkpoint.read(folder)
  files = [path for path in (folder / "1").rglob("*") if path.is_file()]
  refused = set()
  random = np.random.default_rng(0)
  for number, file in enumerate(files):
    for harm in ("flip", "cut") if number % 2 else ("flip", "remove"):
      broken = tmp_path / f"{number}{harm}" / "checkpoints"
      shutil.copytree(folder, broken)
      hurt(broken / file.relative_to(folder), harm, random)
      try:
        restored = checkpoint.restore(broken, state)
        weights = checkpoint.read(broken)
      except (ValueError, FileNotFoundError) as error:
        assert str(broken) in str(error)  # noqa: PT017
        refused.add((file.relative_to(folder / "1"), harm))
      else:
        assert bits(restored) == bits(state)
        assert bits(weights[1:]) == bits((params, fixed))
        assert weights[0] == meta
  assert (pathlib.Path("record") / "metadata", "flip") in refused
  assert any(path.parts[:2] == ("weights", "d") for path, _ in refused)


def hurt(file, harm, random):
  content = bytearray(file.read_bytes())
  if harm == "remove" or not content:
    file.unlink()
  elif harm == "cut":
    file.write_bytes(content[: len(content) // 2])
  else:
    place = random.integers(len(content))
    content[place] ^= 1 << random.integers(8)
    file.write_bytes(content)


def test_an_array_changed_behind_orbaxs_back_is_named(tmp_path, monkeypatch):
  folder = save(tmp_path, make())
  load = checkpoint.Folder.load

  def flipped(self, step, **items):
    result = load(self, step, **items)
    if "training" in items:
      result["weights"]["params/odd"] = -result["weights"]["params/odd"]
    return result

  monkeypatch.setattr(checkpoint.Folder, "load", flipped)
  message = f"{folder}/1 is damaged: not what was saved is params/odd$"
  with pytest.raises(ValueError, match=message):
    checkpoint.restore(folder, make())


@pytest.mark.parametrize(
  ("step", "arguments", "message"),
  [
    (1, {}, "step=1 is not after step 3, the last in .*checkpoints"),
    (3, {}, "step=3 is not after step 3"),
    (4, {"metrics": {"top5": 1.0}}, r"best=.*top1.* is none of .*\['top5'\]"),
    (4, {"meta": {"a": object()}}, "meta must be JSON: .*object"),
    (4, {"meta": {"a": float("nan")}}, "meta must be JSON"),
  ],
)
def test_what_cannot_be_saved_is_refused(tmp_path, step, arguments, message):
  folder = save(tmp_path, make(3))
  with Checkpoints(folder, best=("top1", "max")) as checkpoints:
    with pytest.raises(ValueError, match=message):
      checkpoints.save(
        step, make(step), **({"metrics": {}, "meta": {}} | arguments)
      )
    with pytest.raises(ValueError, match="step=5, but the state took 4 steps"):
      checkpoints.save(5, make(4), metrics={}, meta={})
    empty = make(4).replace(fixed={"nothing": {}})
    with pytest.raises(ValueError, match="fixed must be nested dicts, none"):
      checkpoints.save(4, empty, metrics={}, meta={})
  assert kept(folder) == [3]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"keep": 0}, "keep=0 must be at least 1"),
    ({"best": ("top1", "most")}, "the second must be 'max' or 'min'"),
  ],
)
def test_what_cannot_be_kept_is_refused(tmp_path, arguments, message):
  with pytest.raises(ValueError, match=message):
    Checkpoints(tmp_path, **arguments)


def test_a_full_disk_is_told_and_costs_nothing_that_was_there(tmp_path):
  state = make(width=20_000)
  folder = save(tmp_path, state)
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  with Checkpoints(folder) as checkpoints:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
      with pytest.raises(OSError, match=f"{folder} c.* take step 2"):
        save_and_wait(checkpoints, 2)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoints.last_step == 1
    assert bits(checkpoint.restore(folder, state)) == bits(state)
    save_and_wait(checkpoints, 3)
    assert checkpoints.last_step == 3
  assert kept(folder) == [3]


def save_and_wait(checkpoints, step):
  state = make(step, width=20_000)
  checkpoints.save(step, state, metrics={}, meta={})
  checkpoints.wait()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(OSError, match="file/checkpoints cannot be opened"):
    Checkpoints(tmp_path / "file" / "checkpoints")


KILLED = """
import os, signal, sys, time
import jax
sys.path.insert(0, sys.argv[1])
from test_checkpoint import make
from relvit_jax.training.checkpoint import Checkpoints
import orbax.checkpoint

children = []
for folder, pause in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
  children.append(os.fork())  # JAX has started no device yet.
  if children[-1] == 0:
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, make(1, 1, 1, 50_000), metrics={}, meta={})
    checkpoints.wait()
    checkpoints.save(2, make(2, 1, 2, 50_000), metrics={}, meta={})
    time.sleep(float(pause))
    os.kill(os.getpid(), signal.SIGKILL)
for child in children:
  assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""


@pytest.mark.long
def test_a_killed_save_leaves_the_one_before(tmp_path):
  pauses = (0, 0.02, 0.1, 0.5)
  folders = [str(tmp_path / str(pause) / "checkpoints") for pause in pauses]
  arguments = []
  for folder, pause in zip(folders, pauses, strict=True):
    arguments += [folder, str(pause)]
  tests = str(pathlib.Path(__file__).parent)
  subprocess.run(
    [sys.executable, "-W", "ignore", "-c", KILLED, tests, *arguments],
    check=True,
    timeout=120,
  )
  unfinished = 0
  for folder in folders:
    unfinished += any("tmp" in name for name in os.listdir(folder))
    _, newest = checkpoint.find(folder)
    assert newest in (1, 2)
    restored = checkpoint.restore(folder, make(9, 8, 9, 50_000))
    assert bits(restored) == bits(make(newest, 1, newest, 50_000))
    # The run goes on, and what was unfinished is gone.
    with Checkpoints(folder) as checkpoints:
      assert checkpoints.last_step == newest
      checkpoints.save(3, make(3), metrics={}, meta={})
    assert os.listdir(folder) == ["3"]
  assert unfinished  # Or this shows nothing.


def test_importing_is_cheap():
  code = (
    "import sys, relvit_jax.training.checkpoint;"
    "assert not {'orbax.checkpoint', 'tensorstore'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_orbax_speaks_only_of_trouble(tmp_path, caplog):
  caplog.set_level(logging.INFO)
  from absl import logging as absl_logging

  absl_logging.set_verbosity(absl_logging.INFO)
  try:
    save(tmp_path, make())
    absl_logging.info("from elsewhere")
  finally:
    absl_logging.set_verbosity(absl_logging.WARNING)
  told = [record.getMessage() for record in caplog.records]
  assert [text for text in told if "heckpoint" in text] == []
  assert "from elsewhere" in told


def test_the_record_is_readable_json(tmp_path):
  folder = save(tmp_path, make(), metrics=[{"loss": float("nan")}])
  (file,) = (folder / "1" / "record").glob("metadata")
  content = json.loads(file.read_text(), parse_constant=pytest.fail)["content"]
  assert content["metrics"] == {"loss": "NaN"}
  assert content["meta"] == {"of": 1}
