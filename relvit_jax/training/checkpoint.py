"""Complete states of a run on disk, each leaf with a checksum.

A checkpoint is a folder `<checkpoints>/<step>` that Orbax writes in the
background and renames when it is whole. It holds `weights` (params, fixed and
average), `training` (step, key, optimiser state) and `record` (JSON: what the
caller says of the run, metrics, and dtype, shape and checksum of every leaf).
Orbax itself notices neither a flipped bit nor another dtype.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from relvit_jax.training import distributed, leaves, logs
from relvit_jax.training.checkpoint_folder import (
  Best,
  Folder,
  Path,
  absolute,
  best_of,
  find,
  is_evaluated,
  orbax,
  read_meta,
  sealed,
)
from relvit_jax.training.model_arrays import Params
from relvit_jax.training.step import TrainState

__all__ = [
  "Best",
  "Checkpoints",
  "find",
  "is_evaluated",
  "read",
  "read_meta",
  "restore",
]


class Checkpoints:
  """Saves states of one run, as a context manager.

  Kept are the last checkpoints and the best one, of equals the earliest.
  """

  def __init__(self, folder: Path, *, keep: int = 1, best: Best | None = None):
    """Makes the folder and removes what a killed run left unfinished in it.

    Args:
      folder: `<work directory>/checkpoints`, of this run alone.
      keep: how many of the last checkpoints to keep.
      best: such as ("label_top1", "max"), to keep the best one too.
    """
    if keep < 1:
      raise ValueError(f"keep={keep} must be at least 1")
    if best and best[1] not in ("max", "min"):
      raise ValueError(f"best={best}: the second must be 'max' or 'min'")
    ocp = orbax()
    self._folder = Folder(absolute(folder))
    self._keep, self._best = keep, best
    self._pending: int | None = None
    self._manager: Any = None
    with self._failing_as("cannot be opened"):
      self._manager = ocp.CheckpointManager(
        self._folder.path,
        options=ocp.CheckpointManagerOptions(
          preservation_policy=self, cleanup_tmp_directories=True
        ),
      )
    self._metrics = self._folder.metrics()

  def save(
    self,
    step: int,
    state: TrainState,
    *,
    metrics: Mapping[str, float],
    meta: Mapping[str, Any],
  ) -> None:
    """Copies the state off the device and writes it in the background.

    When this returns, the state may be donated.

    Args:
      step: how many steps the state took.
      state: laid out over the devices in any way.
      metrics: of this state, that of `best` among them. Empty if it was not
        evaluated; it is then never the best, nor is one with NaN.
      meta: what one must know to use the weights, such as the config, as
        JSON; tuples come back as lists.

    Raises:
      ValueError: the step is not after the last one or not the state's, or
        metrics or meta are not as above.
      OSError: this or the previous checkpoint cannot be written.
    """
    self.wait()
    last = self.last_step
    if last is not None and step <= last:
      raise ValueError(
        f"step={step} is not after step {last}, the last in {self._folder.path}"
      )
    if int(state.step) != step:
      raise ValueError(f"step={step}, but the state took {state.step} steps")
    if metrics and self._best and self._best[0] not in metrics:
      raise ValueError(
        f"best={self._best} is none of the metrics: {sorted(metrics)}"
      )
    _check_nested(state)
    record = {
      "meta": _json(meta),
      "metrics": logs.encode(metrics),
      "best": self._best,
      "leaves": leaves.describe(state),
    }
    weights, training = _items(leaves.arrays(state))
    args = orbax().args
    self._pending, self._metrics[step] = step, dict(metrics)
    with self._failing_as(f"cannot take step {step}"):
      self._manager.save(
        step,
        args=args.Composite(
          weights=args.StandardSave(weights),
          training=args.StandardSave(training),
          record=args.JsonSave(sealed(record)),
        ),
        force=True,
      )

  def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
    """Adds the metrics of a step that was saved without any.

    Raises:
      OSError: they cannot be written.
    """
    self.wait()
    if distributed.is_first():
      self._folder.add_metrics(step, metrics)
    # No process looks for the best one before they are there.
    distributed.gather(step)
    self._metrics[step] = dict(metrics)

  def wait(self) -> None:
    """Returns when all that was saved is on disk.

    Raises:
      OSError: it could not be written; names the folder and the step.
    """
    if self._manager is not None:
      with self._failing_as(f"could not take step {self._pending}"):
        self._manager.wait_until_finished()
      self._pending = None

  def close(self) -> None:
    """Waits, and ends the threads; a second time does nothing."""
    try:
      self.wait()
    finally:
      manager, self._manager = self._manager, None
      if manager is not None:
        manager.close()

  def __enter__(self) -> Checkpoints:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  @property
  def last_step(self) -> int | None:
    """The newest step that is wholly on disk."""
    return max(self._folder.steps(), default=None)

  @property
  def best_step(self) -> int | None:
    """The step with the best metric that is wholly on disk."""
    return best_of(self._folder.steps(), self._metrics, self._best)

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> Sequence[bool]:
    """Which checkpoints stay: what Orbax asks before it deletes."""
    steps = sorted(checkpoint.step for checkpoint in checkpoints)
    best = best_of(steps, self._metrics, self._best)
    kept = {*steps[-self._keep :], best}
    return [checkpoint.step in kept for checkpoint in checkpoints]

  @contextlib.contextmanager
  def _failing_as(self, what: str) -> Iterator[None]:
    try:
      yield
    except Exception as error:
      if self._pending is not None:
        self._metrics.pop(self._pending, None)
        self._pending = None
        # Orbax has already taken off its list what it was about to delete.
        self._manager.reload()
      raise OSError(f"{self._folder.path} {what}: {error}") from error


def restore(
  folder: Path, like: TrainState, step: int | None = None
) -> TrainState:
  """A whole state, bit for bit.

  Args:
    folder: anything that `find` takes.
    like: arrays, or shapes with shardings, onto which the state is laid; the
      devices may be others than those it was saved from.
    step: None for the newest.

  Raises:
    FileNotFoundError: there is no such checkpoint.
    ValueError: a leaf is missing or too many, has another shape or dtype, or
      is not what was saved; names it.
  """
  path, step = find(folder, step)
  where, described = f"{path}/{step}", Folder(path).record(step)["leaves"]
  leaves.check_form(where, described, like)
  args = orbax().args
  weights, training = map(args.StandardRestore, _items(leaves.arrays(like)))
  items = Folder(path).load(step, weights=weights, training=training)
  arrays = items["weights"] | items["training"]
  leaves.check_content(where, described, arrays)
  return leaves.rebuild(like, described, arrays)


def read(
  folder: Path, step: int | None = None
) -> tuple[dict[str, Any], Params, Params]:
  """(meta, params, fixed): the weights alone, as NumPy arrays.

  Nothing but the folder is needed; the optimiser's state is not read. Where
  the run kept an average of its parameters, params is that average.

  Args:
    folder: anything that `find` takes.
    step: None for the newest.

  Raises:
    FileNotFoundError: there is no such checkpoint.
    ValueError: a leaf is not what was saved; names it.
  """
  path, step = find(folder, step)
  record = Folder(path).record(step)
  ocp = orbax()
  names = [name for name in record["leaves"] if _is_weight(name)]
  item = ocp.args.PyTreeRestore(
    dict.fromkeys(names, 0),
    restore_args=dict.fromkeys(names, ocp.RestoreArgs(restore_type=np.ndarray)),
  )
  arrays = Folder(path).load(step, weights=item)["weights"]
  leaves.check_content(f"{path}/{step}", record["leaves"], arrays)
  nested = leaves.nested(arrays)
  params = nested.get("average") or nested["params"]
  return record["meta"], params, nested.get("fixed", {})


def _is_weight(name: str) -> bool:
  return name.startswith(("params/", "fixed/", "average/"))


def _items(arrays: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """(weights, training): what is read together."""
  weights = {name: leaf for name, leaf in arrays.items() if _is_weight(name)}
  return weights, {n: leaf for n, leaf in arrays.items() if n not in weights}


def _check_nested(state: TrainState) -> None:
  """Raises unless `read` can give back the weights without a template."""
  for name in ("params", "fixed", "average"):
    given = getattr(state, name)
    plain = {f"{name}/{leaf}": 0 for leaf in leaves.arrays(given)}
    back = leaves.nested(plain).get(name, {})
    if jax.tree.structure(back) != jax.tree.structure(given):
      raise ValueError(f"{name} must be nested dicts, none of them empty")


def _json(meta: Mapping[str, Any]) -> dict[str, Any]:
  try:
    return json.loads(json.dumps(meta, allow_nan=False))
  except (TypeError, ValueError) as error:
    raise ValueError(f"meta must be JSON: {error}") from error
