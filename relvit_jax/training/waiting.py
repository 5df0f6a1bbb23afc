"""How long the devices had nothing to do because the feed was still reading."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import jax

# From this share of the time on it is worth a person's attention.
SIGNIFICANT = 0.1


@dataclasses.dataclass(frozen=True)
class Waits:
  """What was found so far, from the end of the first dispatch on.

  Attributes:
    images: that were read.
    seconds: that training took, without evaluation.
    waited: seconds of these in which the devices waited for the feed.
  """

  images: int = 0
  seconds: float = 0.0
  waited: float = 0.0

  @property
  def share(self) -> float:
    """Of the time, in which the devices waited."""
    return self.waited / self.seconds if self.seconds else 0.0

  def plus(self, images: int, seconds: float, waited: float) -> Waits:
    """With one dispatch more."""
    return Waits(
      self.images + images, self.seconds + seconds, self.waited + waited
    )

  def in_words(self, num_workers: int, cores: int) -> str | None:
    """What limits the run, and what may help; None where the feed does not.

    Args:
      num_workers: processes that decode, 0 for threads.
      cores: of this host.
    """
    if self.share < SIGNIFICANT:
      return None
    rate = self.images / self.seconds
    alone = rate / (1 - self.share) if self.share < 1 else float("inf")
    if num_workers < cores - 1 and cores > 2:
      mend = f"data.num_workers={cores - 1} may help"
    elif 0 < num_workers < cores:
      mend = "data.num_workers=0, which is threads on all cores, may help"
    else:
      mend = "only more cores, or smaller images on the disk, will help"
    return (
      f"the feed is the limit: it gives {rate:,.0f} images/s where the step "
      f"could take {alone:,.0f}, and the device waits {100 * self.share:.0f} % "
      f"of the time; {mend} (num_workers={num_workers}, {cores} cores)"
    )


class Watch:
  """Measures a loop of reading and dispatching; nothing waits for it.

  A dispatch's results are ready when the device is done with it: a thread
  sleeps until then and looks at the clock. Whatever of the reading came later,
  the device had to wait for.

  Args:
    clock: seconds.
  """

  def __init__(self, clock: Callable[[], float] = time.monotonic):
    self.total = Waits()
    self._clock = clock
    self._thread = futures.ThreadPoolExecutor(1, "relvit-watch")
    self._done: futures.Future[float] | None = None
    self._since: float | None = None
    self._read = (0.0, 0.0)
    self._elsewhere = 0.0

  @contextlib.contextmanager
  def reading(self) -> Iterator[None]:
    """Around the reading of a block."""
    begun = self._clock()
    yield
    self._read = begun, self._clock()

  def dispatched(self, results: Any, images: int) -> dict[str, float]:
    """What was read is now dispatched.

    Args:
      results: arrays that are ready when the devices are done with it.
      images: that were read.

    Returns:
      {"feed_wait_share": of the time since the last dispatch, the share in
      which the devices waited for the feed}; {} for the first, which compiles.
    """
    begun, ended = self._read
    waits = {}
    if self._since is not None and self._done is not None:
      waited = 0.0
      if self._done.done() and self._done.exception() is None:
        waited = max(0.0, ended - max(begun, self._done.result()))
      seconds = ended - self._since - self._elsewhere
      self.total = self.total.plus(images, seconds, waited)
      waits["feed_wait_share"] = waited / seconds if seconds > 0 else 0.0
    self._done = self._thread.submit(self._when_ready, results)
    self._since, self._elsewhere = self._clock(), 0.0
    return waits

  @contextlib.contextmanager
  def elsewhere(self) -> Iterator[None]:
    """Around what is neither reading nor a step, such as evaluation."""
    begun = self._clock()
    yield
    self._elsewhere += self._clock() - begun

  def close(self) -> None:
    """Ends the thread; nothing is measured any more."""
    self._thread.shutdown(wait=False)

  def _when_ready(self, results: Any) -> float:
    jax.block_until_ready(results)
    return self._clock()
