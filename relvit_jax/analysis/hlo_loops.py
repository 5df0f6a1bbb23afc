"""How often a training step runs each computation of its dispatch.

A dispatch is a loop over steps, whose number is an argument; all other loops
turn a number of times that the program says.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator

from relvit_jax.analysis import hlo_text

_KNOWN = re.compile(r'known_trip_count[\\"]*:\s*\{[\\"]*n[\\"]*:\s*[\\"]*(\d+)')
_NUMBER = re.compile(r"(\d+)\)")
_PLACE = re.compile(r"\bindex=(\d+)")


class Runs:
  """What runs in a step, and what before the first of a dispatch.

  Attributes:
    step: {computation: how often a step runs it}, without those that belong to
      a single instruction, such as a fusion; of a condition all branches.
    dispatch: the same of all that runs once a dispatch.
    unknown: how many other loops do not say how often they turn; they count
      as one turn.
  """

  def __init__(self, program: hlo_text.Program):
    """Of a program without a loop over steps all is the step.

    Where several loops do not say how often they turn, that over the steps is
    the longest; the compiler makes others.
    """
    self._computations = program.computations
    told = list(self._told(program.entry))
    self._loop = max(told, key=self._length, default=None)
    self.unknown = max(0, len(told) - 1)
    self.dispatch = self._count(program.entry)
    self.step = self._count(self._loop) if self._loop else self.dispatch
    if self._loop is None:
      self.dispatch = collections.Counter()

  def _told(self, first: str) -> Iterator[str]:
    """The bodies of the loops that are told how often to turn."""
    for called, times in self._calls(first):
      if times is None:
        yield called
      yield from self._told(called)

  def _length(self, first: str) -> int:
    """Lines of a computation, and of those that it runs."""
    inner = sum(self._length(called) for called, _ in self._calls(first))
    return len(self._computations[first]) + inner

  def _count(self, first: str) -> collections.Counter[str]:
    """From a computation on, without the loop over steps."""
    counted = collections.Counter({first: 1})
    for called, times in self._calls(first):
      if called != self._loop:
        for name, count in self._count(called).items():
          counted[name] += (1 if times is None else times) * count
    return counted

  def _calls(self, first: str) -> Iterator[tuple[str, int | None]]:
    """What a computation runs, and how often; None: as it is told to."""
    inside = self._computations[first]
    for line in inside.values():
      if line.operation == "while":
        yield line.attribute("body"), self._turns(line, inside)
      elif line.operation in ("call", "conditional"):
        for called in line.called:
          yield called, 1

  def _turns(
    self, loop: hlo_text.Line, inside: hlo_text.Computation
  ) -> int | None:
    """How often a loop turns, that counts from 0; None: as it is told to."""
    if known := _KNOWN.search(loop.rest):
      return int(known[1])
    condition = self._computations[loop.attribute("condition")]
    limits = [_constant(line) for line in condition.values()]
    # Or it is a constant that the loop is given.
    given = inside.get(loop.operands[0]) if loop.operands else None
    for line in condition.values():
      place = _PLACE.search(line.rest)
      if given and given.operation == "tuple" and place:
        source = inside.get(given.operands[int(place[1])])
        if source and line.shape.startswith("s32[]"):
          limits.append(_constant(source))
    found = {limit for limit in limits if limit}
    return found.pop() if len(found) == 1 else None


def _constant(line: hlo_text.Line) -> int | None:
  """The whole number that a line says, if it does."""
  number = _NUMBER.match(line.rest)
  if line.operation != "constant" or not line.shape.startswith("s32[]"):
    return None
  return int(number[1]) if number else None
