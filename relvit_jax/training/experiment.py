"""A whole run in a work directory, from its config to its summary."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from relvit_jax import config_model
from relvit_jax.data import feed as feeds
from relvit_jax.data import read_ahead
from relvit_jax.models import variants
from relvit_jax.training import (
  checkpoint,
  datasets,
  distributed,
  logs,
  loop,
  model_arrays,
  partitioning,
  preemption,
  step,
  transfer,
  waiting,
  workdir,
)
from relvit_jax.training.progress import Progress, in_words
from relvit_jax.training.stage import Stage


class Experiment:
  """One run: opened, trained to its end, summarised.

  Opened again with the same config it goes on where its last checkpoint is. Of
  several processes all do this, and the first one writes and tells.

  Attributes:
    stage: its compiled functions.
    splits: train, validation and test.
  """

  def __init__(self, config: Any, folder: pathlib.Path):
    """Reads the data; what is wrong with the config or the data shows here.

    Args:
      config: checked by `config_checks.check`.
      folder: the work directory; made, or that of the same run.

    Raises:
      ValueError: something cannot be; the message says what would be right.
    """
    mesh = partitioning.check_config(config)
    workdir.check(config, folder)
    self._config, self._folder = config, folder
    self.splits, self._feed = datasets.load(config)
    train = self.splits["train"]
    self.stage = Stage(config, train, mesh, datasets.colours(config, train))
    self._checkpoints = folder / workdir.CHECKPOINTS
    self._best = best_metric(config.tasks)
    self._watch = waiting.Watch()
    self._tells = distributed.is_first()

  def run(self, state: step.TrainState) -> dict[str, Any]:
    """Trains what is left to train, and returns the summary it prints.

    Args:
      state: of `first_state`; donated.

    Raises:
      PreemptedError: the run was told to stop, and all its steps are saved.
    """
    done = int(state.step)
    is_unevaluated = self._is_unevaluated(done)
    # To the end: what was saved last is still being written after the last
    # step, and a second signal must not cut it short.
    with preemption.Notice() as stop:
      if done < self.stage.num_steps or is_unevaluated:
        self._train(state, is_unevaluated, stop)
      return self._summarise(stop)

  def _is_unevaluated(self, done: int) -> bool:
    """Whether an earlier start was stopped while it evaluated this step."""
    due = done % self.stage.eval_every == 0 or done == self.stage.num_steps
    if not done or not due:
      return False
    return not checkpoint.is_evaluated(self._checkpoints, done)

  def _train(
    self, state: step.TrainState, is_unevaluated: bool, stop: preemption.Stop
  ) -> None:
    if self._tells:
      workdir.claim(self._config, self._folder)
    done = int(state.step)
    with (
      checkpoint.Checkpoints(
        self._checkpoints, keep=self._config.keep_checkpoints, best=self._best
      ) as saved,
      self._logs(done) as written,
      Progress(
        self.stage.num_steps,
        done,
        self._config.batch_size,
        is_shown=self._tells,
      ) as shown,
    ):

      def on_progress(done: int, means: loop.Means) -> None:
        if written:
          written.write(done, "train", means)
        shown.advance(done, means)
        shown.limited(self._watch.total.seconds, self._limit())

      def on_evaluation(
        done: int, means: loop.Means, state: step.TrainState
      ) -> None:
        if written:
          written.write(done, "validation", means)
        shown.evaluated(done, "validation", means)
        if done == saved.last_step:
          saved.evaluated(done, means)
        else:
          saved.save(done, state, metrics=means, meta=describe(self.stage))

      def on_stop(done: int, state: step.TrainState) -> None:
        if done != saved.last_step:
          saved.save(done, state, metrics={}, meta=describe(self.stage))

      loop.run(
        self.stage,
        state,
        self.splits["validation"],
        on_progress,
        on_evaluation,
        self._watch,
        stop,
        on_stop,
        is_unevaluated,
      )

  def _logs(
    self, done: int
  ) -> contextlib.AbstractContextManager[logs.Logs | None]:
    if not self._tells:
      return contextlib.nullcontext()
    project = self._config.logs.wandb
    return logs.Logs(
      self._folder,
      resume_step=done,
      tensorboard=self._config.logs.tensorboard,
      wandb={"project": project} if project else None,
    )

  def _limit(self) -> str | None:
    """What the feed costs, where it costs much."""
    feed = self.stage.feed
    if isinstance(feed, feeds.Resident):
      return None
    return self._watch.total.in_words(feed.num_workers, read_ahead.cores())

  def first_state(self) -> step.TrainState:
    """The newest checkpoint, or a fresh state with the weights asked for.

    Raises:
      ValueError: the checkpoint is damaged, or does not fit.
      FileNotFoundError: there is none where `init_from` says.
    """
    self._say_what_runs()
    begun = self._found("last")
    distributed.check_same({"newest checkpoint": begun})
    if begun is not None:
      self._say(f"resumes at step {begun:,} of {self.stage.num_steps:,}")
      return self._restored(begun)
    state = self.stage.init(self._config.seed)
    if not self._config.init_from:
      return state
    folder, at = checkpoint.find(
      self._config.init_from, self._config.init_checkpoint
    )
    meta, params, fixed = checkpoint.read(folder, at)
    self._check_family(meta["config"]["model"]["backbone"])
    state, report = transfer.start(
      state,
      model_arrays.joined(params, fixed),
      (tuple(meta["grid_size"]), self.stage.grid_size),
      own_positions=self._config.model.pos_embed_type == "sinusoidal",
    )
    self._say(f"weights of {folder}, step {at:,}\n{report}")
    return state

  def _check_family(self, theirs: str) -> None:
    """Arrays of one name and shape need not mean the same in another."""
    ours = self._config.model.backbone
    if variants.family_of(theirs) != variants.family_of(ours):
      raise ValueError(
        f"init_from={self._config.init_from!r} has the weights of a {theirs}, "
        f"from which model.backbone={ours!r} cannot start"
      )

  def _summarise(self, stop: preemption.Stop) -> dict[str, Any]:
    """Scores of the last and of the best checkpoint, printed and kept.

    Raises:
      PreemptedError: `stop`, asked before every batch, said so.
    """
    summary: dict[str, Any] = {"test": self.splits["test"].name}
    for which in ("last", "best"):
      at = self._found(which)
      if at is None:  # No evaluation gave a number.
        continue
      state = self._restored(at)
      scores = {
        part: self.stage.evaluate(state, self.splits[part], stop)
        for part in ("validation", "test")
      }
      summary[which] = {"step": at, **scores}
      for part, means in scores.items():
        self._say(f"{which}, step {at:,}, {part}: {in_words(means)}")
    if self._tells:
      workdir.write_summary(self._folder, summary)
    limit = self._limit()
    if limit:
      self._say(f"\n{limit}")
    self._say(
      f"\nbest: by {self._best[0]} on {self.splits['validation'].name}\n"
      f"curves: {self._folder / logs.FILE}"
      f"\nweights: {self._checkpoints}"
      f"\nsummary: {self._folder / workdir.SUMMARY}"
    )
    return summary

  def _found(self, which: str) -> int | None:
    """The step of a checkpoint of this run; None before the first."""
    try:
      return checkpoint.find(self._checkpoints, which)[1]
    except FileNotFoundError:
      return None

  def _restored(self, at: int) -> step.TrainState:
    return checkpoint.restore(self._checkpoints, self.stage.state_shapes, at)

  def _say_what_runs(self) -> None:
    config, mesh = self._config, self.stage.mesh
    for part, split in self.splits.items():
      self._say(f"{part}: {len(split):,} images, {split.name}")
    if config.data.splits.validation == config.data.splits.test:
      self._say(
        "the best checkpoint is chosen on the test images, as in the paper"
      )
    self._say(f"feed: {self._feed}")
    leaves = jax.tree.leaves(self.stage.state_shapes.params)
    self._say(
      f"{config.stage}: {', '.join(config.tasks)}; {config.model.backbone}, "
      f"{sum(leaf.size for leaf in leaves):,} trained parameters; "
      f"{self.stage.num_steps:,} steps of {config.batch_size} images on "
      f"{mesh.size} × {jax.devices()[0].device_kind}"
    )
    for leak in config_model.leaks(config):
      self._say(leak)

  def _say(self, text: str) -> None:
    if self._tells:
      print(text)


def best_metric(tasks: Sequence[str]) -> checkpoint.Best:
  """By which validation metric the best checkpoint is chosen."""
  return ("label_top1", "max") if "label" in tasks else ("loss_total", "min")


def describe(stage: Stage) -> dict[str, Any]:
  """What a checkpoint must say for its weights to be of use alone."""
  return {
    "config": stage.config.to_dict(),
    "class_names": list(stage.class_names),
    "grid_size": list(stage.grid_size),
    "mean": list(stage.views.mean),
    "std": list(stage.views.std),
  }
