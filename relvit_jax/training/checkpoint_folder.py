"""What lies in a folder of checkpoints, and which of them is meant."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from relvit_jax.training import logs

Path = str | os.PathLike[str]
# A metric, and whether "max" or "min" of it is best.
Best = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Folder:
  """A folder `checkpoints`, local or remote (gs://), that may not be there."""

  path: Any

  def steps(self) -> list[int]:
    """Complete steps, ascending; what is unfinished has another name."""
    if not self.path.is_dir():
      return []
    return sorted(orbax().path.step.checkpoint_steps(self.path))

  def load(self, step: int, **items: Any) -> Any:
    """Items of a step, each by its arguments for Orbax.

    Raises:
      ValueError: Orbax cannot read them; says which other steps there are.
    """
    ocp = orbax()
    where = self.path / str(step)
    try:
      with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        result = reader.restore(where, args=ocp.args.Composite(**items))
    except Exception as error:
      raise ValueError(
        f"{where} cannot be read: {error}; steps there: {self.steps()}"
      ) from error
    for name in items:
      if result.get(name) is None:
        raise ValueError(f"{where} has no {name}; steps there: {self.steps()}")
    return result

  def record(self, step: int) -> dict[str, Any]:
    """What `sealed` closed, written down beside the arrays of a step.

    Raises:
      ValueError: it cannot be read, or is not what was written.
    """
    item = orbax().args.JsonRestore()
    seal = self.load(step, record=item)["record"]
    try:
      if sealed(seal["content"]) == seal:
        return seal["content"]
    except (KeyError, TypeError):
      pass
    raise ValueError(
      f"{self.path / str(step)} is damaged: record is not what was saved; "
      f"steps there: {self.steps()}"
    )

  def metrics(self) -> dict[int, dict[str, float]]:
    """By step; none for a step that cannot be read, with a warning.

    Such a step is left behind by a run that was killed deleting it.
    """
    result: dict[int, dict[str, float]] = {}
    for step in self.steps():
      try:
        found = self.record(step)["metrics"] or self._later(step)
        result[step] = logs.decode(found)
      except ValueError as error:
        logging.getLogger(__name__).warning("%s", error)
        result[step] = {}
    return result

  def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
    """Keeps metrics of a step that was saved before it was evaluated."""
    path = self._path_of_later(step)
    text = json.dumps(sealed(logs.encode(metrics))) + "\n"
    fresh = path.parent / f"{path.name}.new"
    fresh.write_text(text)
    fresh.replace(path)

  def _later(self, step: int) -> dict[str, float | str]:
    """What `add_metrics` kept; {} where nothing did.

    Raises:
      ValueError: it is not what was written.
    """
    path = self._path_of_later(step)
    if not path.exists():
      return {}
    try:
      seal = json.loads(path.read_text())
      if sealed(seal["content"]) == seal:
        return seal["content"]
    except (KeyError, TypeError, ValueError):
      pass
    raise ValueError(f"{path} is damaged: it is not what was written")

  def _path_of_later(self, step: int) -> Any:
    return self.path / str(step) / "evaluation.json"


def find(path: Path, which: int | str | None = None) -> tuple[Any, int]:
  """(folder of checkpoints, step).

  Args:
    path: a work directory, its `checkpoints` folder, or the folder of a step
      in there.
    which: a step, "last" or "best"; None for the last, or for the step that
      `path` names.

  Raises:
    FileNotFoundError: there is no such checkpoint; says what there is.
    ValueError: `which` is none of these, or contradicts `path`.
  """
  if isinstance(which, str) and which not in ("last", "best"):
    raise ValueError(f"which={which!r} must be a step, 'last' or 'best'")
  folder = Folder(absolute(path))
  if (folder.path / "checkpoints").is_dir():
    folder = Folder(folder.path / "checkpoints")
  elif folder.path.name.isdecimal() and not folder.steps():
    step = int(folder.path.name)
    if which not in (None, step):
      raise ValueError(f"which={which!r}, but {folder.path} is step {step}")
    folder, which = Folder(folder.path.parent), step
  steps = folder.steps()
  found: int | None = max(steps, default=None)
  if isinstance(which, int):
    found = which if which in steps else None
  elif which == "best" and found is not None:
    found = best_of(steps, folder.metrics(), folder.record(found)["best"])
  if found is None:
    what = "checkpoint" if which is None else f"checkpoint {which!r}"
    raise FileNotFoundError(
      f"no {what} in {folder.path}; complete steps there: {steps or 'none'}"
    )
  return folder.path, found


def read_meta(folder: Path, step: int | None = None) -> dict[str, Any]:
  """The `meta` of a checkpoint, without reading an array."""
  path, step = find(folder, step)
  return Folder(path).record(step)["meta"]


def is_evaluated(folder: Path, step: int) -> bool:
  """Whether the metrics of a step are known: not where a run was stopped."""
  path, step = find(folder, step)
  return bool(Folder(path).metrics()[step])


def sealed(content: Any) -> dict[str, Any]:
  """JSON together with its checksum."""
  text = json.dumps(content, sort_keys=True)
  return {"content": json.loads(text), "crc32": zlib.crc32(text.encode())}


def best_of(
  steps: Iterable[int],
  metrics: Mapping[int, Mapping[str, float]],
  rule: Best | list[str] | None,
) -> int | None:
  """The step with the best metric, the earliest of several; NaN is none."""
  if rule is None:
    return None
  name, mode = rule
  sign = 1 if mode == "max" else -1
  values = {step: metrics[step].get(name, math.nan) for step in sorted(steps)}
  return max(
    (step for step, value in values.items() if not math.isnan(value)),
    key=lambda step: sign * values[step],
    default=None,
  )


def absolute(path: Path) -> Any:
  """As Orbax takes it."""
  from etils import epath

  remote = "://" in os.fspath(path)
  return epath.Path(path if remote else os.path.abspath(path))


def orbax() -> Any:
  """The library: it takes long to import, and tells of every step it takes."""
  import orbax.checkpoint as ocp

  logger = logging.getLogger("absl")
  if _is_no_chatter not in logger.filters:
    logger.addFilter(_is_no_chatter)
  return ocp


def _is_no_chatter(message: logging.LogRecord) -> bool:
  """False for what is below a warning and Orbax's; all else passes."""
  orbaxs = f"{os.sep}orbax{os.sep}" in message.pathname
  return message.levelno >= logging.WARNING or not orbaxs
