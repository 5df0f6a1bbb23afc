"""The training loop: it orchestrates, all work is in the stage's functions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from relvit_jax.data import sources
from relvit_jax.training import metrics, step
from relvit_jax.training.stage import Stage

Means = dict[str, float]


@dataclasses.dataclass(frozen=True)
class History:
  """Means by the step after which they held.

  Attributes:
    train: means over the steps of a dispatch, with dropout and augmentation.
    evaluation: on the evaluation split, the last at the last step.
  """

  train: dict[int, Means] = dataclasses.field(default_factory=dict)
  evaluation: dict[int, Means] = dataclasses.field(default_factory=dict)

  @property
  def last(self) -> Means:
    """The evaluation after the last step."""
    return self.evaluation[max(self.evaluation)]


def run(
  stage: Stage,
  state: step.TrainState,
  eval_split: sources.Split,
  on_progress: Callable[[int, Means], None] | None = None,
) -> tuple[step.TrainState, History]:
  """Trains to the stage's last step, evaluating on the way.

  Args:
    stage: compiled functions.
    state: where to begin; donated, do not use it afterwards.
    eval_split: evaluated every `config.eval_every` steps and at the end.
    on_progress: called with (steps taken, mean training metrics) for every
      dispatch, one dispatch late.

  Raises:
    FloatingPointError: a training loss is not finite; names the steps.
    ValueError: the state is past the last step, or between two dispatches.
  """
  history = History()
  begun, every = int(state.step), stage.config.steps_per_dispatch
  if begun >= stage.num_steps or begun % every:
    raise ValueError(
      f"a state at step {begun} cannot be trained to num_steps="
      f"{stage.num_steps} in dispatches of steps_per_dispatch={every}"
    )
  waiting: tuple[int, metrics.Metrics] | None = None

  def fetch() -> None:
    if waiting is None:
      return
    done, sums = waiting
    means = metrics.means([sums])
    if not math.isfinite(means["loss_total"]):
      raise FloatingPointError(
        f"the loss is {means['loss_total']} in steps {done - every}..{done - 1}"
      )
    history.train[done] = means
    if on_progress:
      on_progress(done, means)

  for done in range(begun + every, stage.num_steps + 1, every):
    state, sums = stage.train_steps(state, stage.train_data)
    # The device has its next work; only now wait for what it did before.
    fetch()
    waiting = done, sums
    if done % stage.config.eval_every == 0 or done == stage.num_steps:
      history.evaluation[done] = stage.evaluate(state, eval_split)
  fetch()
  return state, history
