"""Arms of an experiment over seeds, and what their difference says."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import scipy.stats

from relvit_jax.data import sources
from relvit_jax.training import loop, model_arrays, step, transfer
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
  on_progress: Callable[[int, loop.Means], None] | None = None,
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
    source = model_arrays.joined(pretrained.weights, pretrained.fixed)
    state, _ = transfer.start(state, source)

  def shifted(done: int, means: loop.Means) -> None:
    if on_progress:
      on_progress(before + done, means)

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
  """Mean and sample standard deviation of a share over seeds."""

  mean: float
  std: float
  count: int

  def __str__(self) -> str:
    """In per cent, or in points of a hundred."""
    return _points(self.mean, self.std)

  @property
  def signed(self) -> str:
    """As a gain, with its sign."""
    return _points(self.mean, self.std, sign="+")

  @property
  def is_clear(self) -> bool:
    """Whether a t-test at 5 % tells the mean from zero; never by one seed."""
    if self.count < 2:
      return False
    limit = scipy.stats.t.ppf(0.975, self.count - 1)
    return bool(abs(self.mean) > limit * self.std / math.sqrt(self.count))


def _points(mean: float, std: float, sign: str = "") -> str:
  spread = "" if math.isnan(std) else f" ± {100 * std:.1f}"
  return f"{100 * mean:{sign}.1f}{spread}"


def summarise(values: Sequence[float]) -> Summary:
  """Mean and spread of one number a seed; the spread of one seed is unknown."""
  std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
  return Summary(float(np.mean(values)), std, len(values))


def difference(ours: Sequence[Run], other: Sequence[Run]) -> Summary:
  """Gain in accuracy, paired by seed: the labelled parts began alike."""
  by_seed = {run.seed: run.accuracy for run in other}
  return summarise([run.accuracy - by_seed[run.seed] for run in ours])


# What both comparisons together mean, by the clear sign of each.
_MEANING = {
  (1, 1): "a step of it is worth more than a labelled one",
  (1, 0): "it helps where labelled steps are short, and whether as many "
  "labelled steps would help as much is open",
  (1, -1): "it helps where labelled steps are short, and as many labelled "
  "steps help more",
  (0, -1): "here it does not pay for its steps",
  (-1, -1): "here it does harm",
}


def verdict(equal_labelled: Summary, equal_total: Summary) -> str:
  """One sentence on what pre-training did in both comparisons.

  Args:
    equal_labelled: gain over training without it for the same labelled steps.
    equal_total: gain over labelled steps for as long as both together.
  """

  def sign(gain: Summary) -> int:
    return int(np.sign(gain.mean)) if gain.is_clear else 0

  def told(gain: Summary) -> str:
    if not gain.is_clear:
      return f"changes nothing that is clear ({gain.signed} points)"
    verb = "gains" if gain.mean > 0 else "loses"
    return f"{verb} {_points(abs(gain.mean), gain.std)} points"

  if equal_labelled.count < 2:
    meaning = "one seed has no spread, so nothing can be said"
  else:
    meaning = _MEANING.get(
      (sign(equal_labelled), sign(equal_total)),
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
