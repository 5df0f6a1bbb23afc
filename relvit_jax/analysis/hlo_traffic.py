"""Reads what a compiled program moves to and from main memory from its text."""

from __future__ import annotations

import collections
from collections.abc import Iterator

from relvit_jax.analysis import hlo_loops, hlo_text
from relvit_jax.analysis.hlo_text import Array

# What moves nothing: names of arrays, and the ends of what began elsewhere;
# what a loop and a call move is in their computations.
_NOTHING = (
  "parameter",
  "constant",
  "tuple",
  "get-tuple-element",
  "bitcast",
  "copy-done",
  "slice-done",
  "async-done",
  "after-all",
  "while",
  "call",
  "conditional",
)
_MOVES = ("copy-start", "slice-start", "async-start")


def main_memory_bytes(text: str) -> dict[str, int]:
  """Bytes read from and written to main memory in a step, by operation.

  Of each instruction all operands and results, each once; those that the
  compiler keeps in a core's own memory, in its text the space S(1), do not
  count. An operand counts whole, though a fusion may read a part of it. XLA's
  own count, the "bytes accessed" of a cost analysis, has the core's memory
  too, and a copy into it several times.

  Args:
    text: an optimised HLO module for a TPU, `compiled.as_text()`.

  Raises:
    ValueError: the text is no program, or has more than one loop whose turns
      are not known.
  """
  program = hlo_text.parse(text)
  moved: collections.Counter[str] = collections.Counter()
  for name, times in hlo_loops.Runs(program).step.items():
    for operation, size in _of_computation(program.computations[name]):
      moved[operation] += times * size
  return dict(moved)


def _of_computation(
  inside: hlo_text.Computation,
) -> Iterator[tuple[str, int]]:
  shapes = {name: hlo_text.arrays(line.shape) for name, line in inside.items()}
  for name, line in inside.items():
    if line.operation in _NOTHING or "ConcatBitcast" in line.rest:
      continue
    if line.operation in _MOVES:
      yield line.operation, _moved(shapes[name])
      continue
    touched = list(shapes[name])
    for operand in line.operands:
      touched += shapes.get(operand, [])
    size = sum(array.size for array in touched if array.is_outside)
    if size:
      yield line.operation, size


def _moved(arrays: list[Array]) -> int:
  """Of a copy from one memory to another: what arrives, on the main side.

  The shape has what is copied from, what arrives and a counter; the smaller of
  the first two arrives.
  """
  source, target = sorted(
    arrays[:2], key=lambda array: (array.size, array.is_outside), reverse=True
  )
  return target.size * (source.is_outside + target.is_outside)
