"""Metrics of a run as files: JSON lines, TensorBoard events, and W&B.

In a run of several processes only the first one writes.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import math
import os
import pathlib
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

FILE = "metrics.jsonl"
SPLITS = ("train", "validation", "test")

_RESERVED = ("step", "split", "time")
# JSON has no such numbers; these words are what JavaScript, Python and pandas
# turn back into them.
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Logs:
  """Writes metrics to `folder`, as a context manager.

  `metrics.jsonl` has one record a line: step, split, time (seconds since the
  epoch) and the metrics, every digit of them. What a killed run wrote after
  the checkpoint that a run goes on from is removed, so that the file becomes
  that of an undisturbed run, apart from the times.

  Attributes:
    dropped: how many lines of `metrics.jsonl` were removed, one that was cut
      short among them.
  """

  def __init__(
    self,
    folder: str | os.PathLike[str],
    *,
    resume_step: int = 0,
    tensorboard: bool = True,
    wandb: dict[str, Any] | None = None,
  ):
    """Opens the files.

    Args:
      folder: of the run; made if it is not there.
      resume_step: the step the run goes on from; records of later steps are
        removed. At 0 a run begins anew, and all records are.
      tensorboard: whether to write event files too.
      wandb: arguments of `wandb.init`, such as project and name; None for no
        Weights & Biases. The id of its run is kept in `folder`.

    Raises:
      ValueError: wandb is asked for and not installed, or the lines there are
        none of ours.
      OSError: the folder cannot be written to.
    """
    # First what may fail for a reason that is no fault of the files.
    module = _wandb(wandb)
    self._folder = pathlib.Path(folder)
    self._folder.mkdir(parents=True, exist_ok=True)
    self._path = self._folder / FILE
    self.dropped = _cut(self._path, resume_step)
    # Unbuffered: a line is on its way to the disk when `write` returns.
    self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115
    self._events = _Events(self._folder, resume_step) if tensorboard else None
    self._run = None
    if module:
      self._run = _start(module, wandb, self._folder, anew=not resume_step)

  def write(self, step: int, split: str, means: Mapping[str, float]) -> None:
    """Adds one record.

    Args:
      step: how many training steps were taken.
      split: train, validation or test.
      means: metrics; NaN and infinities are written as the strings "NaN",
        "Infinity" and "-Infinity", which `read` turns back.

    Raises:
      ValueError: the split or a metric's name cannot be used.
      OSError: the disk is full; names the file.
    """
    if split not in SPLITS:
      raise ValueError(f"split={split!r} must be one of {', '.join(SPLITS)}")
    for name in means:
      if name in _RESERVED:
        raise ValueError(
          f"a metric cannot be named {name!r}: each record has that already"
        )
    now = time.time()
    values = {name: float(value) for name, value in means.items()}
    record = {"step": int(step), "split": split, "time": now} | encode(values)
    line = (json.dumps(record, allow_nan=False) + "\n").encode()
    with _naming(self._path):
      if self._file.write(line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    tagged = {f"{split}/{name}": value for name, value in values.items()}
    if self._events:
      self._events.write(int(step), now, tagged)
    if self._run:
      self._run.log(tagged, step=int(step))

  def close(self) -> None:
    """Closes all files; a second time does nothing."""
    try:
      self._file.close()
      if self._events:
        self._events.close()
    finally:
      if self._run:
        self._run.finish()
      self._events = self._run = None

  def __enter__(self) -> Logs:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def read(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """The records of `metrics.jsonl`, in the order in which they were written.

  A last line that is still being written is left out.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: a line is no record; names it.
  """
  path = pathlib.Path(folder) / FILE
  return [record for record, _ in _records(path)]


def encode(values: Mapping[str, float]) -> dict[str, float | str]:
  """Numbers as JSON can hold them; see `decode`."""
  return {name: _encode(value) for name, value in values.items()}


def decode(values: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `encode`; other strings stay."""
  return {
    name: _NOT_FINITE.get(value, value) if isinstance(value, str) else value
    for name, value in values.items()
  }


def _encode(value: float) -> float | str:
  if math.isfinite(value):
    return value
  if math.isnan(value):
    return "NaN"
  return "Infinity" if value > 0 else "-Infinity"


def _records(path: pathlib.Path) -> list[tuple[dict[str, Any], bytes]]:
  """Every record and its line, without a last one that was cut short."""
  lines = path.read_bytes().splitlines(keepends=True)
  result = []
  for number, line in enumerate(lines, start=1):
    try:
      record = json.loads(line)
      if not isinstance(record["step"], int):
        raise TypeError("step is no whole number")
    except (ValueError, KeyError, TypeError) as error:
      if number == len(lines) and not line.endswith(b"\n"):
        break
      raise ValueError(
        f"{path}, line {number} is no record of a run: {error!r}"
      ) from error
    result.append((decode(record), line.rstrip(b"\n") + b"\n"))
  return result


def _cut(path: pathlib.Path, resume_step: int) -> int:
  """Removes the lines after a step and returns how many those were."""
  if not path.exists():
    return 0
  before = path.read_bytes()
  kept = [
    line
    for record, line in _records(path)
    if resume_step and record["step"] <= resume_step
  ]
  after = b"".join(kept)
  if after != before:
    # Killed in between, either the old file is there or the new one.
    fresh = path.with_name(path.name + ".new")
    with _naming(fresh), fresh.open("wb") as file:
      file.write(after)
      file.flush()
      os.fsync(file.fileno())
    fresh.replace(path)
  return len(before.splitlines()) - len(kept)


@contextlib.contextmanager
def _naming(path: os.PathLike[str]) -> Iterator[None]:
  """Gives an OSError that names no file the name of this one."""
  try:
    yield
  except OSError as error:
    if error.filename is not None:
      raise
    raise OSError(error.errno, error.strerror, str(path)) from error


class _Events:
  """One TensorBoard event file.

  Of tensorboardX only the format: its SummaryWriter writes in a thread, and
  when that dies of a full disk, the run waits for it for ever.
  """

  def __init__(self, folder: pathlib.Path, resume_step: int):
    from tensorboardX.record_writer import RecordWriter

    # The generated modules make their classes at run time, unseen by pyright.
    self._event: Any = importlib.import_module("tensorboardX.proto.event_pb2")
    self._summary: Any = importlib.import_module(
      "tensorboardX.proto.summary_pb2"
    )
    earlier = list(folder.glob("events.out.tfevents.*"))
    seconds, rest = divmod(time.time_ns(), 10**9)
    # TensorBoard reads the files of a folder in the order of their names.
    name = f"events.out.tfevents.{seconds:010d}.{rest:09d}.{_host()}"
    self._path = folder / name
    self._writer = RecordWriter(str(self._path))
    self._put(wall_time=time.time(), file_version="brain.Event:2")
    if earlier:
      # TensorBoard then hides what the files before said of later steps.
      self._put(
        wall_time=time.time(),
        step=resume_step + 1 if resume_step else 0,
        session_log=self._event.SessionLog(status=self._event.SessionLog.START),
      )

  def write(self, step: int, now: float, tagged: Mapping[str, float]) -> None:
    one = self._summary.Summary.Value
    values = [one(tag=t, simple_value=value) for t, value in tagged.items()]
    summary = self._summary.Summary(value=values)
    self._put(wall_time=now, step=step, summary=summary)

  def close(self) -> None:
    with _naming(self._path):
      self._writer.close()

  def _put(self, **fields: Any) -> None:
    with _naming(self._path):
      self._writer.write(self._event.Event(**fields).SerializeToString())
      self._writer.flush()


def _host() -> str:
  return socket.gethostname() or "host"


def _wandb(settings: dict[str, Any] | None) -> Any:
  """The module, or None where it is not asked for."""
  if settings is None:
    return None
  try:
    return importlib.import_module("wandb")
  except ImportError as error:
    raise ValueError(
      f"wandb={settings} asks for Weights & Biases, which is not installed: "
      "pip install wandb, or leave wandb empty"
    ) from error


def _start(
  module: Any, settings: Any, folder: pathlib.Path, *, anew: bool
) -> Any:
  """A W&B run: the one whose id is in the folder, or a new one."""
  path = folder / "wandb_id.txt"
  if anew or not path.exists():
    path.write_text(uuid.uuid4().hex + "\n", encoding="utf-8")
  known = path.read_text(encoding="utf-8").strip()
  return module.init(
    **{"id": known, "resume": "allow", "dir": str(folder)} | settings
  )
