"""The loop learns from real images, and stops when a number is none."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax import config, grid
from relvit_jax.data import read_ahead, sources
from relvit_jax.training import (
  loop,
  metrics,
  partitioning,
  preemption,
  step,
  waiting,
)
from relvit_jax.training.stage import Stage

SPLITS = sources.digits()
MESH = partitioning.make_mesh(devices=jax.devices()[:1])


def make(name, **keys):
  settings = config.load(name)
  settings.update_from_flattened_dict(keys)
  return Stage(settings, SPLITS["train"], MESH)


@pytest.mark.long
def test_pretraining_finds_relations_and_positions_in_pixels():
  stage = make("digits:pretrain", num_steps=600, eval_every=200)
  seen = []
  state, history = loop.run(
    stage,
    stage.init(0),
    SPLITS["test"],
    lambda done, means: seen.append(done),
  )
  assert int(state.step) == 600
  assert seen == list(history.train) == [100, 200, 300, 400, 500, 600]
  assert list(history.evaluation) == [200, 400, 600]
  losses = [means["loss_total"] for means in history.train.values()]
  assert losses == sorted(losses, reverse=True)
  chance = metrics.chance(stage.config.tasks, stage.grid_size)
  assert history.last["relation_accuracy"] > 2 * chance["relation_accuracy"]
  assert history.last["position_accuracy"] > 2.5 * chance["position_accuracy"]
  # With no embedding all patches of a blank image are answered alike.
  nothing = stage.evaluate(state, sources.blank(SPLITS["test"]))
  for metric in ("relation_accuracy", "position_accuracy"):
    assert nothing[metric] <= chance[metric] + 1e-6


def pretrained_with_positions(permute_patches):
  """(chance, training metrics, metrics on blank images) after 600 steps."""
  stage = make(
    "digits:pretrain",
    num_steps=600,
    eval_every=600,
    **{"model.pos_embed": True, "augment.permute_patches": permute_patches},
  )
  state, history = loop.run(stage, stage.init(0), SPLITS["validation"])
  nothing = stage.evaluate(state, sources.blank(SPLITS["test"]))
  chance = metrics.chance(stage.config.tasks, stage.grid_size)
  return chance, history.train[600], nothing


@pytest.mark.long
def test_positional_embeddings_give_the_answer_away():
  """Why pre-training has none: the tasks are then solved with eyes shut."""
  _, _, nothing = pretrained_with_positions(permute_patches=False)
  assert nothing["position_accuracy"] > 0.99
  assert nothing["relation_accuracy"] > 0.9


@pytest.mark.long
def test_permutation_closes_the_leak():
  chance, seen, nothing = pretrained_with_positions(permute_patches=True)
  for metric, level in chance.items():
    assert 1.3 * level < seen[metric] < 0.5
  # Of a blank image no more is known than how frequent an answer is. A share
  # of right answers would not tell: 16 patches are 16 guesses.
  shares = np.bincount(grid.relations(4, 4).ravel()) / 256
  assert nothing["loss_position"] > np.log(16)
  assert nothing["loss_relation"] > -np.sum(shares * np.log(shares))


@pytest.mark.long
def test_supervised_training_learns_the_labels():
  stage = make("digits:supervised", num_steps=600, eval_every=600)
  _, history = loop.run(stage, stage.init(0), SPLITS["test"])
  assert history.last["label_top1"] > 0.4  # Chance is 0.1.


@pytest.mark.long
def test_a_run_goes_on_where_its_state_stands():
  stage = make("digits:supervised", num_steps=300, eval_every=300)
  whole, _ = loop.run(stage, stage.init(0), SPLITS["validation"])
  kept = {}

  def keep(done, means, state):
    kept[done] = jax.tree.map(jnp.copy, state)

  short = make("digits:supervised", num_steps=300, eval_every=150)
  loop.run(short, short.init(0), SPLITS["validation"], on_evaluation=keep)
  assert list(kept) == [150, 300]
  rest, history = loop.run(stage, kept[150], SPLITS["validation"])
  assert list(history.train) == [200, 300]
  for once, twice in zip(
    jax.tree.leaves(whole.params), jax.tree.leaves(rest.params), strict=True
  ):
    np.testing.assert_array_equal(once, twice)


@pytest.mark.long
def test_a_loss_that_is_no_number_stops_the_run():
  stage = make("digits:supervised", num_steps=300, eval_every=300)
  state = stage.init(0)
  poisoned = jax.tree.map(
    lambda leaf: jnp.full_like(leaf, jnp.nan), state.params
  )
  broken = step.TrainState(
    state.step, state.key, poisoned, state.fixed, state.opt_state
  )
  with pytest.raises(FloatingPointError, match=r"loss is nan in step 0;"):
    loop.run(stage, broken, SPLITS["validation"])


@pytest.mark.long
def test_a_state_that_cannot_reach_the_end_is_refused():
  stage = make("digits:supervised", num_steps=100, eval_every=100)
  state, _ = loop.run(stage, stage.init(0), SPLITS["validation"])
  with pytest.raises(ValueError, match=r"at step 100 .* num_steps=100"):
    loop.run(stage, state, SPLITS["validation"])


TINY = {
  "num_steps": 10,
  "eval_every": 4,
  "steps_per_dispatch": 3,
  "eval_batch_size": 100,  # Two batches of the 200 for validation.
  "model.backbone": "vit",
  "model.embed_dim": 12,
  "model.depth": 1,
  "model.num_heads": 2,
}


def stopped(stage, state, when, is_unevaluated=False):
  """(the curve of a run that is told to stop when asked so often, its end)."""
  curve, asked, end = [], 0, []

  def stop():
    nonlocal asked
    asked += 1
    return asked > when

  try:
    loop.run(
      stage,
      state,
      SPLITS["validation"],
      lambda done, means: curve.append((done, means)),
      lambda done, means, state: curve.append((done, means)),
      stop=stop,
      on_stop=lambda done, state: end.append((done, state)),
      is_unevaluated=is_unevaluated,
    )
  except preemption.PreemptedError:
    assert len(end) == 1
    return curve, end[0]
  assert not end
  return curve, None


@pytest.mark.long
def test_whenever_a_run_is_told_to_stop_no_step_is_lost():
  stage = make("digits:supervised", **TINY)
  whole, _ = stopped(stage, stage.init(0), 1000)
  assert [done for done, _ in whole] == [2, 4, 4, 6, 8, 8, 10, 10]
  ends = []
  # Five dispatches, and three evaluations of two batches.
  for when in range(11):
    before, (done, state) = stopped(stage, stage.init(0), when)
    assert int(state.step) == done
    ends.append(done)
    evaluated = [at for at, means in before if "gradient_norm" not in means]
    after, rest = stopped(
      stage, state, 1000, done in (4, 8, 10) and done not in evaluated
    )
    assert rest is None
    assert before + after == whole
  assert ends == [2, 4, 4, 4, 6, 8, 8, 8, 10, 10, 10]


class Slow(sources.Split):
  """A tenth of a second to find a batch, whoever asks."""

  def take(self, indices):
    time.sleep(0.1)
    return super().take(indices)


def waits(monkeypatch, train, **keys):
  """(what a run found that its devices waited, its history)."""
  monkeypatch.setattr(read_ahead, "cores", lambda: 1)
  settings = config.load("digits:supervised")
  settings.update_from_flattened_dict(
    {"num_steps": 24, "eval_every": 24, "steps_per_dispatch": 4} | keys
  )
  stage = Stage(settings, train, MESH)
  watch = waiting.Watch()
  _, history = loop.run(stage, stage.init(0), SPLITS["validation"], watch=watch)
  return watch.total, history


@pytest.mark.long
def test_a_slow_feed_is_found_out_with_how_slow_it_is(monkeypatch):
  train = SPLITS["train"]
  slow = Slow("slow", train.images, train.labels, train.class_names)
  found, history = waits(
    monkeypatch,
    slow,
    **{"data.feed": "streaming", "data.num_workers": 0, "batch_size": 32},
    **{"model.backbone": "vit", "model.embed_dim": 12, "model.depth": 1},
    **{"model.num_heads": 2},
  )
  # Sixteen batches or more were read while nothing else went on.
  assert found.images == 20 * 32
  assert found.share > 0.5
  assert 250 < found.images / found.seconds < 450
  shares = [means.get("feed_wait_share") for means in history.train.values()]
  assert shares[0] is None
  assert max(shares[1:]) > 0.5


@pytest.mark.long
def test_a_fast_feed_and_a_resident_one_are_not_blamed(monkeypatch):
  for keys in (
    {"data.feed": "streaming", "data.num_workers": 0, "batch_size": 256},
    {"batch_size": 256},
  ):
    found, history = waits(monkeypatch, SPLITS["train"], **keys)
    assert found.in_words(0, 2) is None
    streams = "data.feed" in keys
    assert ("feed_wait_share" in history.train[24]) == streams
