"""What a compiled program reads and writes, from its text."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Iterator
from typing import Literal

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
  "after-all",
  "while",
  "call",
  "conditional",
)
# What reads a part of its first operand; what writes into it, at its place.
_PARTS = ("dynamic-slice", "gather", "slice")
_INTO = "dynamic-update-slice"
_MOVES = ("copy-start", "slice-start", "async-start")
# In a layout: a memory other than the main one.
_SPACE = re.compile(r"S\(\d+\)")


def main_memory_bytes(
  text: str, part: Literal["step", "dispatch"] = "step"
) -> dict[str, int]:
  """Bytes read from and written to main memory, by operation.

  Of each instruction all operands and results, each once; of an operand that
  is only sliced or gathered from, and of a result that is only written into,
  that part. What the compiler keeps in a core's own memory, in its text the
  space S(1), does not count. XLA's own count, the "bytes accessed" of a cost
  analysis, has the core's memory too, and a copy into it several times.

  Args:
    text: an optimised HLO module for a TPU, `compiled.as_text()`.
    part: a step, or what runs once a dispatch.

  Raises:
    ValueError: the text is no program.
  """
  program = hlo_text.parse(text)
  runs = hlo_loops.Runs(program)
  counted = runs.step if part == "step" else runs.dispatch
  moved: collections.Counter[str] = collections.Counter()
  for name, times in counted.items():
    for operation, size in _of_computation(program, name):
      moved[operation] += times * size
  return dict(moved)


def kernel_bytes(
  text: str, part: Literal["step", "dispatch"] = "step"
) -> dict[str, int]:
  """Bytes that kernels read and write, whichever memory holds them.

  Counted like `main_memory_bytes`, and comparable with what a model's formula
  says of kernels that each read and write their arrays once: what only moves
  from one memory to another does not count.

  Raises:
    ValueError: the text is no program.
  """
  everything = main_memory_bytes(_SPACE.sub("", text), part)
  return {
    operation: size
    for operation, size in everything.items()
    if operation not in _MOVES
  }


def _of_computation(
  program: hlo_text.Program, computation: str
) -> Iterator[tuple[str, int]]:
  inside = program.computations[computation]
  for line in inside.values():
    made = hlo_text.arrays(line.shape)
    is_end = line.operation.endswith("-done")
    if line.operation in _NOTHING or is_end or "ConcatBitcast" in line.rest:
      continue
    if line.operation in _MOVES:
      yield line.operation, _moved(made)
      continue
    size = sum(
      min(_written(program, line, array), array.size)
      for array in made
      if array.is_outside
    )
    # What begins an exchange has both sides in its own shape.
    begins = line.operation.endswith("-start")
    for place, operand in enumerate(() if begins else line.operands):
      if operand in inside:
        size += _read(program, line, place, _outside(inside[operand]))
    if size:
      yield line.operation, size


def _outside(line: hlo_text.Line) -> int:
  """Bytes of what an instruction makes that main memory holds."""
  arrays = hlo_text.arrays(line.shape)
  return sum(array.size for array in arrays if array.is_outside)


def _read(
  program: hlo_text.Program, line: hlo_text.Line, place: int, whole: int
) -> int:
  """Of an operand of so many bytes, how many an instruction reads."""
  if not whole:
    return 0
  if line.operation in _PARTS and place == 0:
    return min(whole, sum(one.size for one in hlo_text.arrays(line.shape)))
  if line.operation != "fusion":
    return whole
  inside = program.computations.get(line.called[0], {})
  for name, parameter in inside.items():
    is_it = parameter.rest.startswith(f"{place})")
    if parameter.operation == "parameter" and is_it:
      return _used(program, inside, name, whole)
  return whole


def _used(
  program: hlo_text.Program,
  inside: hlo_text.Computation,
  name: str,
  whole: int,
) -> int:
  """Bytes that a fusion reads of a value in it.

  Nothing in a fusion is computed that nobody asks for: of what is changed
  number by number only that is read of which the result is.
  """
  size, is_read = 0, False
  for user, line in inside.items():
    for place, operand in enumerate(line.operands):
      if operand != name:
        continue
      is_read = True
      if line.operation == _INTO and place == 0:
        continue
      if line.operation not in _PARTS and _count(line) == _count(inside[name]):
        size += _used(program, inside, user, whole)
      else:
        size += _read(program, line, place, whole)
      if size >= whole:
        return whole
  return size if is_read else whole


def _count(line: hlo_text.Line) -> int:
  """How many numbers an instruction makes."""
  return sum(math.prod(one.lengths) for one in hlo_text.arrays(line.shape))


def _written(
  program: hlo_text.Program, line: hlo_text.Line, made: Array
) -> int:
  """Bytes of a result that an instruction writes."""
  inside = {"": line}
  if line.operation == "fusion":
    inside = program.computations.get(line.called[0], {})
  for one in inside.values():
    if one.operation != _INTO or len(one.operands) < 2:
      continue
    [whole] = hlo_text.arrays(one.shape)
    if whole[:2] == made[:2] and one.operands[1] in inside:
      [part] = hlo_text.arrays(inside[one.operands[1]].shape)
      return part.size
  return made.size


def _moved(arrays: list[Array]) -> int:
  """Of a copy from one memory to another: what arrives, on the main side.

  The shape has what is copied from, what arrives and a counter; the smaller of
  the first two arrives.
  """
  source, target = sorted(
    arrays[:2], key=lambda array: (array.size, array.is_outside), reverse=True
  )
  return target.size * (source.is_outside + target.is_outside)
