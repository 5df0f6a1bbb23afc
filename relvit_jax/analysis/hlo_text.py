"""The text of a compiled program, taken apart."""

from __future__ import annotations

import functools
import math
import re
from typing import NamedTuple

# [ROOT] %dot.5 = f32[8,64,96]{2,1,0} dot(%x, %y), lhs_contracting_dims={2}, …
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?(\S+) = (.+?) ([a-z][\w-]*)\((.*)$")
_COMPUTATION = re.compile(r"(ENTRY )?%?(\S+) (?:\(.*\) -> .* )?\{$")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|condition|branch_computations"
  r"|true_computation|false_computation)="
  r"(\{[^}]*\}|%?[\w.-]+)"
)
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](\{[^}]*\})?")
_BITS = re.compile(r"\d+")
_NAME = re.compile(r"%([\w.-]+)")


class Line(NamedTuple):
  """One instruction.

  Attributes:
    shape: of its result, as written.
    operation: such as fusion.
    rest: what stands behind the bracket of its operands.
  """

  shape: str
  operation: str
  rest: str

  @property
  def called(self) -> list[str]:
    """The computations in it, by name."""
    return [
      inner.strip().lstrip("%")
      for names in _CALLED.findall(self.rest)
      for inner in names.strip("{}").split(",")
    ]

  @property
  def operands(self) -> list[str]:
    """The names of what it reads."""
    depth = 1
    for end, letter in enumerate(self.rest):
      depth += (letter == "(") - (letter == ")")
      if not depth:
        return _NAME.findall(self.rest[:end])
    return _NAME.findall(self.rest)

  @property
  def op_name(self) -> str | None:
    """What JAX calls it."""
    found = _OP_NAME.search(self.rest)
    return found[1] if found else None

  def attribute(self, name: str) -> str:
    """The computation that it calls as this, such as body."""
    found = re.search(rf"\b{name}=%?([\w.-]+)", self.rest)
    assert found is not None, (name, self.rest)
    return found[1]


Computation = dict[str, Line]


class Program(NamedTuple):
  """All computations by name, and the name of the first to run."""

  computations: dict[str, Computation]
  entry: str


class Array(NamedTuple):
  """An array in a shape.

  Attributes:
    dtype: such as bf16.
    lengths: of its axes.
    is_outside: whether main memory holds it; else a core's own memory.
  """

  dtype: str
  lengths: tuple[int, ...]
  is_outside: bool

  @property
  def size(self) -> int:
    """In bytes."""
    bits = _BITS.search(self.dtype)
    # pred has a byte.
    return -(-math.prod(self.lengths) * (int(bits[0]) if bits else 8) // 8)


# A long text is asked several questions in a row.
@functools.lru_cache(maxsize=2)
def parse(text: str) -> Program:
  """Takes a program apart.

  Args:
    text: an optimised HLO module, `compiled.as_text()` of a jitted function.

  Raises:
    ValueError: it is no HLO module.
  """
  found: dict[str, Computation] = {}
  entry = None
  inside: Computation = {}
  for line in text.splitlines():
    instruction = _INSTRUCTION.match(line)
    if instruction:
      name, *rest = instruction.groups()
      inside[name] = Line(*rest)
      continue
    header = _COMPUTATION.match(line)
    if header:
      inside = found.setdefault(header[2], {})
      entry = header[2] if header[1] else entry
  if entry is None:
    raise ValueError("the text has no ENTRY computation: it is no HLO module")
  return Program(found, entry)


def arrays(shape: str) -> list[Array]:
  """Those of bf16[8,64]{1,0:T(8,128)S(1)}, or of a tuple of such."""
  return [
    Array(
      dtype,
      tuple(int(length) for length in lengths.split(",") if length),
      "S(" not in layout,
    )
    for dtype, lengths, layout in _ARRAY.findall(shape)
  ]
