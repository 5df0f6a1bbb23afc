"""The parts of a step are those of the stage that trains."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax import config
from relvit_jax.analysis import parts, timing
from relvit_jax.data import sources
from relvit_jax.training import partitioning
from relvit_jax.training.stage import Stage

pytestmark = pytest.mark.long

SPLIT = sources.digits()["train"]

# One block, and whatever else a step may have to do.
SMALL = {
  "batch_size": 16,
  "steps_per_dispatch": 3,
  "num_steps": 40,
  "tasks": ("label", "relation"),
  "model.embed_dim": 12,
  "model.depth": 1,
  "augment.permute_patches": True,
  "optimizer.ema_decay": 0.9,
}


def stage_of(**keys):
  settings = config.load("digits:joint")
  settings.update_from_flattened_dict(SMALL | keys)
  mesh = partitioning.make_mesh(devices=jax.devices()[:4])
  return Stage(settings, SPLIT, mesh)


@pytest.fixture(scope="module")
def stage():
  return stage_of()


@pytest.fixture(scope="module")
def maker(stage):
  return parts.Parts(stage)


@pytest.fixture(scope="module")
def made(maker):
  return {name: maker.make(name) for name in parts.NAMES}


@pytest.mark.parametrize("name", parts.NAMES)
def test_every_part_runs_again_without_compiling(made, name):
  part = made[name]
  assert part.name == name
  assert part.planned_bytes > 0
  assert part.least <= part.most
  jax.block_until_ready(part.call(part.least))
  with timing.Compilations() as compiled:
    jax.block_until_ready(part.call(min(part.most, 5)))
    assert part.clock(part.least)() > 0
  assert compiled.count == 0


def test_the_bare_step_is_the_stage_s_on_a_batch_that_stays(stage, maker, made):
  _, held, data = maker._bare()
  copied = jax.tree.map(jnp.copy, held[0])
  take = jax.jit(stage.train_step(lambda keys, batch: batch["shown"]))
  expected, _ = take(copied, data)
  made["step"].call(1)
  assert held[0].step == copied.step + 1
  chex.assert_trees_all_close(held[0].params, expected.params, atol=1e-6)
  assert len(data["image"].sharding.device_set) == 4


def test_the_whole_takes_as_many_steps(stage, maker, made, monkeypatch):
  fetched = []
  monkeypatch.setattr(
    parts.metrics,
    "means",
    lambda sums: fetched.append(jax.device_get(sums[0]["loss_total"][1])),
  )
  made["end_to_end"].call(5)
  # In dispatches of 3 and 2, of 16 images.
  assert [counts.tolist() for counts in fetched] == [[16, 16, 16], [16, 16, 0]]


def test_augmentation_is_another_in_every_step(made):
  one, two = (np.asarray(made["augmentation"].call(1).images) for _ in range(2))
  assert one.shape == (16, 8, 8, 3)
  assert np.abs(one - two).max() > 0.1


def test_heads_are_without_the_backbone(made):
  products = {
    name: made[name].program(1).as_text().count(" dot(")
    for name in ("heads", "step")
  }
  assert 0 < products["heads"] < products["step"]


def test_batches_that_are_sent_are_a_part_too():
  part = parts.Parts(stage_of(**{"data.feed": "streaming"})).make("feed")
  assert part.planned_bytes is None
  assert part.call(4)["image"].shape == (3, 16, 8, 8, 3)
