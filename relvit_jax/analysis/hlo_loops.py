"""How often a training step runs each computation of its dispatch.

A dispatch is a loop over steps, whose number is an argument; all other loops
turn a number of times that the program says.
"""

from __future__ import annotations

import collections
import re

from relvit_jax.analysis import hlo_text

_KNOWN = re.compile(r'known_trip_count[\\"]*:\s*\{[\\"]*n[\\"]*:\s*[\\"]*(\d+)')
_NUMBER = re.compile(r"(\d+)\)")


class Runs:
  """What runs in a step, and what before the first of a dispatch.

  Attributes:
    step: {computation: how often a step runs it}, without those that belong to
      a single instruction, such as a fusion.
    dispatch: the same of all that runs once a dispatch.
  """

  def __init__(self, program: hlo_text.Program):
    """Of a program without a loop over steps all is the step.

    Raises:
      ValueError: more than one loop does not say how often it turns.
    """
    self._computations = program.computations
    self._loop: str | None = None
    self.dispatch = self._count(program.entry)
    self.step = self._count(self._loop) if self._loop else self.dispatch
    if self._loop is None:
      self.dispatch = collections.Counter()

  def _count(self, first: str) -> collections.Counter[str]:
    """From a computation on, without the loop over steps."""
    counted = collections.Counter({first: 1})
    for line in self._computations[first].values():
      if line.operation == "while":
        body = line.attribute("body")
        turns = self._turns(line)
        if turns is None and self._loop not in (None, body):
          raise ValueError(
            f"two loops do not say how often they turn: {self._loop}, {body}"
          )
        if turns is None:
          self._loop = body
        else:
          self._add(counted, body, turns)
      elif line.operation in ("call", "conditional", "async-start"):
        for called in line.called:
          self._add(counted, called, 1)
    return counted

  def _add(
    self, counted: collections.Counter[str], called: str, times: int
  ) -> None:
    for name, count in self._count(called).items():
      counted[name] += times * count

  def _turns(self, loop: hlo_text.Line) -> int | None:
    """How often a loop turns, that counts from 0; None: as it is told to."""
    if known := _KNOWN.search(loop.rest):
      return int(known[1])
    condition = self._computations[loop.attribute("condition")]
    limits = [
      int(number[1])
      for line in condition.values()
      if line.operation == "constant"
      and line.shape.startswith("s32[]")
      and (number := _NUMBER.match(line.rest))
    ]
    return limits[0] if len(limits) == 1 else None
