"""Arms, seeds, and the one line that says what came out."""

import dataclasses

import jax
import numpy as np
import pytest

from relvit_jax import config
from relvit_jax.analysis import comparison
from relvit_jax.analysis.comparison import Summary
from relvit_jax.data import sources
from relvit_jax.training import loop, partitioning, step
from relvit_jax.training.stage import Stage

pytestmark = pytest.mark.long

SPLITS = sources.digits()


NO_STATE = step.TrainState(None, None, {}, {}, ())


def run_of(seed, accuracy):
  history = loop.History(evaluation={10: {"label_top1": accuracy}})
  return comparison.Run(
    seed=seed, seconds=1.0, labelled=NO_STATE, history=history
  )


def test_spread_is_the_sample_standard_deviation():
  summary = comparison.summarise([0.1, 0.2, 0.3])
  assert (summary.mean, summary.count) == (pytest.approx(0.2), 3)
  assert summary.std == pytest.approx(0.1)
  assert f"{summary}" == "20.0 ± 10.0"


def test_one_seed_has_no_spread_and_nothing_is_clear():
  summary = comparison.summarise([0.5])
  assert summary.signed == "+50.0"
  assert not summary.is_clear


def test_one_seed_says_nothing():
  alone = comparison.summarise([0.5])
  assert "one seed has no spread" in comparison.verdict(alone, alone)


def test_clear_is_what_a_t_test_calls_so():
  # By t with 1 degree of freedom two seeds need 12.7 standard errors.
  assert not Summary(0.10, 0.02, 2).is_clear  # 7.1 of them.
  assert Summary(0.10, 0.02, 3).is_clear  # 8.7, where 4.3 are needed.


def test_differences_are_paired_by_seed():
  ours = [run_of(0, 0.5), run_of(1, 0.9)]
  other = [run_of(1, 0.8), run_of(0, 0.4)]
  gain = comparison.difference(ours, other)
  assert gain.mean == pytest.approx(0.1)
  assert gain.std == pytest.approx(0.0)


@pytest.mark.parametrize(
  ("labelled", "total", "text"),
  [
    (
      Summary(0.109, 0.054, 5),
      Summary(-0.057, 0.025, 5),
      "At equal labelled steps pre-training gains 10.9 ± 5.4 points; at equal "
      "total steps it loses 5.7 ± 2.5 points: it helps where labelled steps "
      "are short, and as many labelled steps help more.",
    ),
    (
      Summary(0.05, 0.01, 5),
      Summary(0.02, 0.01, 5),
      "At equal labelled steps pre-training gains 5.0 ± 1.0 points; at equal "
      "total steps it gains 2.0 ± 1.0 points: a step of it is worth more than "
      "a labelled one.",
    ),
    (
      Summary(0.01, 0.05, 5),
      Summary(-0.02, 0.05, 5),
      "At equal labelled steps pre-training changes nothing that is clear "
      "(+1.0 ± 5.0 points); at equal total steps it changes nothing that is "
      "clear (-2.0 ± 5.0 points): the two comparisons leave it open.",
    ),
  ],
)
def test_the_verdict_follows_the_signs(labelled, total, text):
  assert comparison.verdict(labelled, total) == text


def test_an_arm_pretrains_hands_over_the_backbone_and_finetunes():
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])

  def stage(name):
    settings = config.load(f"digits:{name}")
    settings.num_steps = settings.eval_every = 20
    settings.steps_per_dispatch = 10
    return Stage(settings, SPLITS["train"], mesh)

  # A stage that trains nothing leaves the weights as they were handed over.
  frozen = stage("finetune")
  frozen.train_steps = lambda state, data, count: (
    dataclasses.replace(state, step=state.step + count),
    {"loss_total": (np.ones(10), np.ones(10))},
  )
  arm = comparison.Arm("both", stage("pretrain"), frozen)
  assert (arm.labelled_steps, arm.all_steps) == (20, 40)
  seen = []
  run = comparison.run_arm(
    arm, 0, SPLITS["test"], lambda done, _: seen.append(done)
  )
  assert seen == [10, 20, 30, 40]
  assert run.pretrained is not None
  for part in ("blocks", "patch_embed", "norm", "cls_token"):
    for ours, theirs in zip(
      jax.tree.leaves(run.labelled.params["backbone"][part]),
      jax.tree.leaves(run.pretrained.params["backbone"][part]),
      strict=True,
    ):
      np.testing.assert_array_equal(ours, theirs)
  assert 0 <= run.accuracy <= 1
  assert comparison.as_json(arm, [run])["runs"][0]["seed"] == 0
