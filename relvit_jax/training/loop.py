"""The training loop: it orchestrates, all work is in the stage's functions."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from relvit_jax.data import feed
from relvit_jax.training import metrics, preemption, step, waiting
from relvit_jax.training.stage import Stage

Means = dict[str, float]


@dataclasses.dataclass(frozen=True)
class History:
  """Means by the step after which they held.

  Attributes:
    train: means over the steps of a dispatch, with dropout and augmentation;
      of a streaming feed also `feed_wait_share`, the share of the time in which
      the devices waited for it, which no two runs have alike.
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
  eval_split: feed.Examples,
  on_progress: Callable[[int, Means], None] | None = None,
  on_evaluation: Callable[[int, Means, step.TrainState], None] | None = None,
  watch: waiting.Watch | None = None,
  stop: preemption.Stop = preemption.never,
  on_stop: Callable[[int, step.TrainState], None] | None = None,
  is_unevaluated: bool = False,
) -> tuple[step.TrainState, History]:
  """Trains to the stage's last step, evaluating on the way.

  Where a dispatch ends follows from the step alone, so that a run that was
  stopped goes on with the dispatches that it would have had.

  Args:
    stage: compiled functions.
    state: where to begin; donated, do not use it afterwards.
    eval_split: evaluated every `stage.eval_every` steps and at the end.
    on_progress: called with (steps taken, mean training metrics) for every
      dispatch, one dispatch late.
    on_evaluation: called with (steps taken, metrics, the state) after every
      evaluation; the state is donated to the next dispatch after that.
    watch: to see how long the devices wait for the feed.
    stop: asked after every dispatch and before every batch of an evaluation.
    on_stop: called with (steps taken, the state) where the run stops before its
      end.
    is_unevaluated: whether the evaluation at the state's step is still to come.

  Raises:
    PreemptedError: `stop` said so; all steps that were taken are in the state
      that `on_stop` saw.
    FloatingPointError: a training loss is not finite; names the step. No
      evaluation has seen the state that came of it.
    ValueError: the state is past the last step.
  """
  history = History()
  done = int(state.step)
  if done >= stage.num_steps and not is_unevaluated:
    raise ValueError(
      f"a state at step {done} has nothing left of num_steps={stage.num_steps}"
    )
  # Compiled as one program, not as seven.
  words = np.asarray(jax.device_get(jax.jit(step.order_words)(state.key)))
  watch = watch or waiting.Watch()
  late = _Late(history, on_progress)

  def evaluate() -> None:
    with watch.elsewhere():
      means = stage.evaluate(state, eval_split, stop)
      history.evaluation[done] = means
      if on_evaluation:
        on_evaluation(done, means, state)

  with contextlib.closing(watch), contextlib.closing(stage.feed):
    try:
      if is_unevaluated:
        evaluate()
      while done < stage.num_steps:
        begun, done = done, stage.block_end(done)
        with watch.reading():
          data = stage.feed.block(words, begun, done - begun)
        state, sums = stage.train_steps(state, data, np.int32(done - begun))
        waits = watch.dispatched(sums, (done - begun) * stage.feed.batch_size)
        # The device has its next work; only now wait for what it did before.
        late.fetch()
        resident = isinstance(stage.feed, feed.Resident)
        late.keep(begun, done, sums, {} if resident else waits)
        if stop():
          raise preemption.PreemptedError
        if done % stage.eval_every == 0 or done == stage.num_steps:
          late.fetch()
          evaluate()
    except preemption.PreemptedError:
      late.fetch()
      if on_stop:
        on_stop(done, state)
      raise preemption.PreemptedError(f"stopped after step {done:,}") from None
  return state, history


class _Late:
  """The metrics of a dispatch that may still be running, to be fetched."""

  def __init__(
    self, history: History, on_progress: Callable[[int, Means], None] | None
  ):
    self._history, self._on_progress = history, on_progress
    self._kept: tuple[int, int, metrics.Metrics, Means] | None = None

  def keep(
    self, begun: int, ended: int, sums: metrics.Metrics, waits: Means
  ) -> None:
    self._kept = begun, ended, sums, waits

  def fetch(self) -> None:
    if self._kept is None:
      return
    begun, ended, sums, waits = self._kept
    self._kept = None
    means = metrics.means([sums]) | waits
    check_finite(sums["loss_total"], begun, ended)
    self._history.train[ended] = means
    if self._on_progress:
      self._on_progress(ended, means)


def check_finite(losses: tuple[Any, Any], begun: int, ended: int) -> None:
  """Raises, naming the first step of a dispatch whose loss is no number."""
  values = np.asarray(jax.device_get(losses[0]))[: ended - begun]
  broken = np.flatnonzero(~np.isfinite(values))
  if len(broken):
    raise FloatingPointError(
      f"the loss is {values[broken[0]]} in step {begun + broken[0]}; the run "
      "stopped, and nothing of it was saved since the last evaluation"
    )
