"""Reads what devices tell each other in a compiled program from its text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from relvit_jax.analysis import hlo_loops, hlo_text

_KINDS = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
  "collective-broadcast",
  "ragged-all-to-all",
)
# {{0,1},{2,3}}; [4,2]<=[8]; mesh['data'=4,'fsdp'=2] {'fsdp'}, of newer XLA.
_CHANNEL = re.compile(r"channel_id=(\d+)")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_COUNTED = re.compile(r"replica_groups=\[\d+,(\d+)\]<=")
_NAMED = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")
# An axis, or a part of one: 'data', 'data':(2)4 with every second of eight.
_AXIS = re.compile(r"'([^']*)'(?::\(\d+\)(\d+))?")


class Collective(NamedTuple):
  """An exchange between devices.

  Attributes:
    kind: all-reduce, all-gather, reduce-scatter, all-to-all or
      collective-permute, …
    elements: how many numbers a device gives, or of an all-gather gets.
    size: the same in bytes.
    devices: that take part in one; 0: all that there are.
    times: how often in a step, or in a dispatch.
    in_step: whether every step does it; else the dispatch does once.
    names: what JAX calls that which is exchanged.
  """

  kind: str
  elements: int
  size: int
  devices: int
  times: int
  in_step: bool
  names: tuple[str, ...]

  def sent(self, num_devices: int) -> float | int:
    """Bytes that a device sends at least, where all exchange at once.

    Args:
      num_devices: of the program.
    """
    devices = self.devices or num_devices
    if self.kind == "collective-permute":
      return self.size
    share = self.size * (devices - 1) / devices
    return 2 * share if self.kind == "all-reduce" else share


def collectives(text: str) -> list[Collective]:
  """All of a program; of a condition those of every branch.

  Args:
    text: an optimised HLO module, `compiled.as_text()` of a jitted function.

  Raises:
    ValueError: the text is no program.
  """
  program = hlo_text.parse(text)
  runs = hlo_loops.Runs(program)
  found = []
  for counted, in_step in ((runs.step, True), (runs.dispatch, False)):
    for name, times in counted.items():
      # A TPU spreads one over several fusions, each of which names it.
      seen = set()
      for kind, inside, line in _exchanges(program, name):
        channel = _CHANNEL.search(line.rest)
        if channel and channel[1] in seen:
          continue
        seen.add(channel[1] if channel else None)
        found.append(_described(kind, line, inside, times, in_step))
  return found


def _exchanges(
  program: hlo_text.Program, name: str
) -> Iterator[tuple[str, hlo_text.Computation, hlo_text.Line]]:
  """(kind, where it stands, it) in a computation, and in its instructions."""
  inside = program.computations[name]
  for line in inside.values():
    if kind := _kind(line.operation):
      # What a TPU calls so keeps of every sum a part.
      if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"
      yield kind, inside, line
    elif line.operation in ("fusion", "async-start"):
      for called in line.called:
        if called in program.computations:
          yield from _exchanges(program, called)


def _kind(operation: str) -> str | None:
  kind = operation.removesuffix("-start")
  return kind if kind in _KINDS else None


def _described(
  kind: str,
  line: hlo_text.Line,
  inside: hlo_text.Computation,
  times: int,
  in_step: bool,
) -> Collective:
  given = [inside[name] for name in line.operands if name in inside]
  arrays = [array for one in given for array in hlo_text.arrays(one.shape)]
  if kind == "all-gather":
    arrays = hlo_text.arrays(line.shape)
    if line.operation == "all-gather-start":
      # What goes in stands before what comes out.
      arrays = arrays[len(arrays) // 2 :]
  names = [one.op_name for one in (line, *given)]
  return Collective(
    kind=kind,
    elements=sum(math.prod(array.lengths) for array in arrays),
    size=sum(array.size for array in arrays),
    devices=_group(line.rest),
    times=times,
    in_step=in_step,
    names=tuple(dict.fromkeys(name for name in names if name)),
  )


def _group(rest: str) -> int:
  """How many devices take part in one exchange."""
  if listed := _LISTED.search(rest):
    return listed[1].count(",") + 1
  if counted := _COUNTED.search(rest):
    return int(counted[1])
  if named := _NAMED.search(rest):
    sizes = dict(re.findall(r"'([^']*)'=(\d+)", named[1]))
    return math.prod(
      int(part or sizes[axis]) for axis, part in _AXIS.findall(named[2])
    )
  return 0
