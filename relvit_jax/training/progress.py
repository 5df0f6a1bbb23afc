"""How a run is going, on a terminal or in the lines of a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

# Where there is no terminal a line is written this often, in seconds.
_LINE_EVERY = 30.0

# Only after so many seconds of training is the feed blamed: what it had read
# while the step was compiled is used up by then.
_BLAME_AFTER = 20.0

# Metric → (its name to a person, its unit, what to multiply it with).
WORDS = {
  "loss_total": ("loss", "", 1),
  "label_top1": ("label", " %", 100),
  "label_top5": ("top 5", " %", 100),
  "relation_accuracy": ("relation", " %", 100),
  "position_accuracy": ("position", " %", 100),
  "distance_error": ("distance", " patches off", 1),
  "angle_error": ("angle", " off", 1),
  "drloc_error": ("drloc", " patches off", 1),
}


def in_words(means: Mapping[str, float], brief: bool = False) -> str:
  """loss 1.234, label 45.1 %, relation 36.2 %: what a person looks at.

  Args:
    means: metrics; those without words are left out.
    brief: for a bar, which has less room.
  """
  parts = []
  for metric, (name, unit, factor) in WORDS.items():
    if metric in means and not (brief and metric == "label_top5"):
      digits = 1 if factor == 100 else 3
      parts.append(f"{name} {factor * means[metric]:.{digits}f}{unit}")
  return ", ".join(parts)


class Progress:
  """A bar on a terminal, lines elsewhere; as a context manager.

  Args:
    total: steps of the run.
    done: steps that an earlier start of it took.
    batch_size: images a step.
    stream: an open text file; None for stderr.
    is_shown: of several processes one is.
  """

  def __init__(
    self,
    total: int,
    done: int,
    batch_size: int,
    stream: Any = None,
    *,
    is_shown: bool = True,
  ):
    self._is_shown = is_shown
    self._stream = sys.stderr if stream is None else stream
    self._total, self._done, self._batch = total, done, batch_size
    self._begun = self._lined = time.monotonic()
    self._first = done
    self._blamed = False
    self._bar = tqdm(
      total=total * batch_size,
      initial=done * batch_size,
      unit=" images",
      unit_scale=True,
      dynamic_ncols=True,
      file=self._stream,
      disable=not (is_shown and self._stream.isatty()),
    )

  def advance(self, done: int, means: Mapping[str, float]) -> None:
    """After so many steps the training metrics were these."""
    self._bar.set_postfix_str(in_words(means, brief=True), refresh=False)
    self._bar.update((done - self._done) * self._batch)
    self._done = done
    if self._bar.disable and time.monotonic() - self._lined > _LINE_EVERY:
      self._lined = time.monotonic()
      self.say(
        f"step {done:,} of {self._total:,}{self._pace()}: {in_words(means)}"
      )

  def evaluated(
    self, done: int, split: str, means: Mapping[str, float]
  ) -> None:
    """After so many steps a split was evaluated."""
    self.say(f"step {done:,}, {split}: {in_words(means)}")

  def limited(self, seconds: float, limit: str | None) -> None:
    """What limits the run after so many seconds of training: said once."""
    if limit and seconds >= _BLAME_AFTER and not self._blamed:
      self._blamed = True
      self.say(limit)

  def say(self, text: str) -> None:
    """A line that stays, above the bar."""
    if self._is_shown:
      tqdm.write(text, file=self._stream)

  def _pace(self) -> str:
    """images/s and the time left, since the run was started here."""
    seconds = time.monotonic() - self._begun
    steps = self._done - self._first
    left = tqdm.format_interval(seconds / steps * (self._total - self._done))
    return f", {steps * self._batch / seconds:,.0f} images/s, {left} left"

  def __enter__(self) -> Progress:
    return self

  def __exit__(self, *_: object) -> None:
    self._bar.close()
