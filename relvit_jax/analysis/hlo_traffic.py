"""Reads what a compiled program moves to and from main memory from its text."""

from __future__ import annotations

import collections
import math
import re
from typing import NamedTuple

_INSTRUCTION = re.compile(
  r"\s+(?:ROOT )?%?(\S+) = (.+?) ([a-z][\w-]*)\(([^)]*)\)(.*)$"
)
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](\{[^}]*\})?")
_BITS = re.compile(r"\d+")
# What moves nothing: names of arrays, and the ends of what began elsewhere.
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
)
_MOVES = ("copy-start", "slice-start", "async-start")


class Array(NamedTuple):
  """Of a shape in the text: its bytes, and whether main memory holds it."""

  size: int
  is_outside: bool


def main_memory_bytes(text: str) -> dict[str, int]:
  """Bytes read from and written to main memory, by operation.

  Of each instruction of the entry computation all operands and results, each
  once; those that the compiler keeps in a core's own memory, in its text the
  space S(1), do not count. An operand counts whole, though a fusion may read
  a part of it. XLA's own count, the "bytes accessed" of a cost analysis, has
  the core's memory too, and a copy into it several times.

  Args:
    text: an optimised HLO module for a TPU, `compiled.as_text()`.

  Raises:
    ValueError: the text has no entry computation, or a loop in it, whose
      turns are not known.
  """
  _, found, entry = text.partition("\nENTRY ")
  if not found:
    raise ValueError("the text has no ENTRY computation: it is no HLO module")
  shapes: dict[str, list[Array]] = {}
  moved: collections.Counter[str] = collections.Counter()
  for line in entry.splitlines()[1:]:
    match = _INSTRUCTION.match(line)
    if match is None:
      continue
    name, shape, operation, operands, rest = match.groups()
    shapes[name] = arrays = _arrays(shape)
    if operation == "while":
      raise ValueError(f"how often the loop {name} turns is not known")
    if operation in _NOTHING or "ConcatBitcast" in rest:
      continue
    if operation in _MOVES:
      moved[operation] += _moved(arrays)
      continue
    for operand in re.findall(r"%([\w.-]+)", operands):
      arrays = arrays + shapes.get(operand, [])
    moved[operation] += sum(array.size for array in arrays if array.is_outside)
  return dict(moved)


def _arrays(shape: str) -> list[Array]:
  """Those of bf16[8,64]{1,0:T(8,128)S(1)}, or of a tuple of such."""
  return [
    Array(_bytes(dtype, lengths), "S(" not in layout)
    for dtype, lengths, layout in _ARRAY.findall(shape)
  ]


def _bytes(dtype: str, lengths: str) -> int:
  bits = _BITS.search(dtype)
  size = int(bits[0]) if bits else 8  # pred has a byte.
  count = math.prod(int(length) for length in lengths.split(",") if length)
  return -(-count * size // 8)


def _moved(arrays: list[Array]) -> int:
  """Of a copy from one memory to another: what arrives, on the main side.

  The shape has what is copied from, what arrives and a counter; the smaller of
  the first two arrives.
  """
  source, target = sorted(arrays[:2], reverse=True)
  return target.size * (source.is_outside + target.is_outside)
