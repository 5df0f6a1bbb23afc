"""How long something takes: medians of interleaved repetitions."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

# In each of so many rounds everything that is measured has its turn, so that
# what disturbs the machine for a while disturbs all of it.
ROUNDS = 5

# Does the work once and says how many seconds it took.
Clock = Callable[[], float | int]

_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass(frozen=True)
class Timing:
  """Seconds of something that was done again and again.

  Attributes:
    samples: seconds of each repetition, in the order measured.
  """

  samples: tuple[float | int, ...]

  def __post_init__(self) -> None:
    if not self.samples:
      raise ValueError("samples is empty: nothing was measured")

  @property
  def median(self) -> float:
    return float(np.median(self.samples))

  @property
  def quartiles(self) -> tuple[float, float]:
    """Between them lies the middle half of the repetitions."""
    lower, upper = np.quantile(self.samples, (0.25, 0.75))
    return float(lower), float(upper)

  def __truediv__(self, count: float | int) -> Timing:
    """Of one of so many equal parts of the work."""
    return Timing(tuple(sample / count for sample in self.samples))

  def as_json(self) -> dict[str, Any]:
    """Plain data, in seconds."""
    lower, upper = self.quartiles
    return {
      "median": self.median,
      "lower_quartile": lower,
      "upper_quartile": upper,
      "repetitions": len(self.samples),
    }


class Compilations:
  """Counts what XLA compiles while it is entered."""

  def __init__(self) -> None:
    self.count = 0

  def _listen(self, event: str, duration_secs: float, **kwargs: Any) -> None:
    del duration_secs, kwargs
    self.count += event == _COMPILE_EVENT

  def __enter__(self) -> Compilations:
    jax.monitoring.register_event_duration_secs_listener(self._listen)
    return self

  def __exit__(self, *error: object) -> None:
    jax.monitoring.unregister_event_duration_listener(self._listen)


def clocked(function: Callable[[], Any]) -> Clock:
  """A clock of a function; waits for the arrays that it returns."""

  def clock() -> float:
    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began

  return clock


def interleaved(
  clocks: Mapping[str, Clock], seconds: float | int
) -> dict[str, Timing]:
  """Measures each for so many seconds, a fifth of them in each of five rounds.

  What takes longer than a fifth is done once a round, and what takes longer
  than half of the seconds only in every second round: three times. Its first
  repetition in a round does not count: a virtual machine takes memory back
  that lay idle while others had their turn, and gives it again page by page.
  With 1.2 GB of temporaries that is 1.3 to 1.6 s of a first step of ViT-S/4,
  on two cores of an AMD EPYC (Zen 3), where the next ones take 2.0.

  Args:
    clocks: by name.
    seconds: for each of them, what does not count excluded.

  Raises:
    ValueError: there is no time.
  """
  if seconds <= 0:
    raise ValueError(f"seconds={seconds} must be above 0")
  samples: dict[str, list[float | int]] = {name: [] for name in clocks}
  for round_number in range(ROUNDS):
    for name, clock in clocks.items():
      found = samples[name]
      if round_number % 2 and found[-1] > seconds / 2:
        continue
      clock()
      left = seconds / ROUNDS
      while left > 0:
        found.append(clock())
        left -= found[-1]
  return {name: Timing(tuple(found)) for name, found in samples.items()}
