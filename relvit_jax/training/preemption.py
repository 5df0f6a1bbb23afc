"""A run that is told to stop: SIGTERM, as schedulers and clouds send it.

One process sees its own signal. Of several any may be told, at any moment, and
all must stop after the same dispatch: JAX's preemption service passes the word
on and finds the first dispatch that none of them has yet gone past.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils

Item = TypeVar("Item")

# Whether to stop now: asked equally often by all processes of a run.
Stop = Callable[[], bool]


class PreemptedError(Exception):
  """The run was told to stop, and has."""


def never() -> bool:
  """A `Stop` of who is never told."""
  return False


def unless(stop: Stop, items: Iterable[Item]) -> Iterator[Item]:
  """The items, until one is asked for after the run was told to stop.

  Raises:
    PreemptedError: then.
  """
  for item in items:
    if stop():
      raise PreemptedError("stopped between two batches of an evaluation")
    yield item


class Notice:
  """Whether this run was told to stop, as a context manager and a `Stop`.

  Where it is not entered, SIGTERM ends the process as ever: before the first
  step there is nothing to save.
  """

  def __init__(self) -> None:
    self._told = False
    self._asked = 0
    self._previous: Any = None

  def __call__(self) -> bool:
    if jax.process_count() > 1 and not self._told:
      self._asked += 1
      self._told = multihost_utils.reached_preemption_sync_point(self._asked)
    return self._told

  def __enter__(self) -> Notice:
    # JAX catches the signal for several processes; and only the main thread
    # may say what becomes of one.
    here = threading.current_thread() is threading.main_thread()
    if jax.process_count() == 1 and here:
      self._previous = signal.signal(signal.SIGTERM, self._hear)
    return self

  def __exit__(self, *error: object) -> None:
    if self._previous is not None:
      signal.signal(signal.SIGTERM, self._previous)
      self._previous = None

  def _hear(self, number: int, frame: Any) -> None:
    del number, frame
    self._told = True
