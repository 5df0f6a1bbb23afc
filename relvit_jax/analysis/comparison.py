"""Arms of an experiment over seeds, and what their difference says."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from relvit_jax.data import sources
from relvit_jax.training import loop, step, transfer
from relvit_jax.training.stage import Stage


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way to spend training steps.

  Attributes:
    name: as printed.
    pretrain: the stage without labels, or None.
    labelled: the stage with labels; it begins with the pre-trained backbone.
  """

  name: str
  pretrain: Stage | None
  labelled: Stage

  @property
  def labelled_steps(self) -> int:
    return self.labelled.num_steps

  @property
  def all_steps(self) -> int:
    before = self.pretrain.num_steps if self.pretrain else 0
    return before + self.labelled_steps


@dataclasses.dataclass(frozen=True)
class Run:
  """One seed of an arm.

  Attributes:
    seconds: from the first step to the last, compilation included.
    pretrained, labelled: final states; histories beside them.
  """

  seed: int
  seconds: float
  labelled: step.TrainState
  history: loop.History
  pretrained: step.TrainState | None = None
  pretrain_history: loop.History | None = None

  @property
  def accuracy(self) -> float:
    """Label accuracy on the test split after the last step, from 0 to 1."""
    return self.history.last["label_top1"]


def run_arm(
  arm: Arm,
  seed: int,
  test: sources.Split,
  on_progress: Callable[[int, loop.Metrics], None] | None = None,
) -> Run:
  """Trains one arm; the test split is looked at and chooses nothing.

  Args:
    on_progress: called with (steps of the whole arm, training metrics).
  """
  began = time.perf_counter()
  pretrained, pretrain_history, before = None, None, 0
  # Arms that end in the same stage start their labelled part alike.
  state = arm.labelled.init(seed)
  if arm.pretrain:
    pretrained, pretrain_history = loop.run(
      arm.pretrain, arm.pretrain.init(seed), test, on_progress
    )
    before = arm.pretrain.num_steps
    params = transfer.backbone(pretrained.params, state.params).params
    state = dataclasses.replace(state, params=params)

  def shifted(done: int, metrics: loop.Metrics) -> None:
    if on_progress:
      on_progress(before + done, metrics)

  labelled, history = loop.run(arm.labelled, state, test, shifted)
  jax.block_until_ready(labelled)
  return Run(
    seed=seed,
    seconds=time.perf_counter() - began,
    labelled=labelled,
    history=history,
    pretrained=pretrained,
    pretrain_history=pretrain_history,
  )


@dataclasses.dataclass(frozen=True)
class Summary:
  """Mean and sample standard deviation over seeds."""

  mean: float
  std: float
  count: int

  def __format__(self, sign: str) -> str:
    """In points of a hundred; "+" with its sign, "abs" without."""
    mean = abs(self.mean) if sign == "abs" else self.mean
    number = f"{100 * mean:{'+' if sign == '+' else ''}.1f}"
    spread = "" if math.isnan(self.std) else f" ± {100 * self.std:.1f}"
    return number + spread

  @property
  def is_clear(self) -> bool:
    """Whether the mean is at least two standard errors from zero."""
    return abs(self.mean) > 2 * self.std / math.sqrt(self.count)


def summarise(values: Sequence[float]) -> Summary:
  """Mean and spread of one number a seed; the spread of one seed is unknown."""
  std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
  return Summary(float(np.mean(values)), std, len(values))


def difference(ours: Sequence[Run], other: Sequence[Run]) -> Summary:
  """Gain in accuracy, paired by seed: both arms saw the same batches."""
  by_seed = {run.seed: run.accuracy for run in other}
  return summarise([run.accuracy - by_seed[run.seed] for run in ours])


# What both comparisons together mean, by the clear sign of each.
_MEANING = {
  ("gains", "gains"): "a step of it is worth more than a labelled one",
  ("gains", "changes"): "it is worth as much as as many labelled steps",
  ("gains", "loses"): "it helps where labelled steps are short, and as many "
  "labelled steps help more",
  ("changes", "loses"): "here it does not pay for its steps",
  ("loses", "loses"): "here it does harm",
}


def verdict(equal_labelled: Summary, equal_total: Summary) -> str:
  """One sentence on what pre-training did in both comparisons.

  Args:
    equal_labelled: gain over training without it for the same labelled steps.
    equal_total: gain over labelled steps for as long as both together.
  """

  def outcome(gain: Summary) -> str:
    if not gain.is_clear:
      return "changes"
    return "gains" if gain.mean > 0 else "loses"

  def told(gain: Summary) -> str:
    if not gain.is_clear:
      return f"changes nothing clearly ({gain:+} points)"
    return f"{outcome(gain)} {gain:abs} points"

  meaning = _MEANING.get(
    (outcome(equal_labelled), outcome(equal_total)),
    "the two comparisons leave it open",
  )
  return (
    f"At equal labelled steps pre-training {told(equal_labelled)}; at equal "
    f"total steps it {told(equal_total)}: {meaning}."
  )


def as_json(arm: Arm, runs: Sequence[Run]) -> dict[str, Any]:
  """All that was measured of an arm, as plain data."""
  return {
    "name": arm.name,
    "labelled_steps": arm.labelled_steps,
    "all_steps": arm.all_steps,
    "runs": [
      {
        "seed": run.seed,
        "seconds": round(run.seconds, 2),
        "test_accuracy": run.accuracy,
        "evaluation": run.history.evaluation,
        "pretrain_evaluation": (
          run.pretrain_history.evaluation if run.pretrain_history else None
        ),
      }
      for run in runs
    ],
  }
