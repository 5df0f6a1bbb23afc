"""Reads what a compiled program multiplies from its text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

# [ROOT] %dot.5 = f32[8,64,96]{2,1,0} dot(%x, %y), lhs_contracting_dims={2}, …
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?(\S+) = (.+?) ([a-z][\w-]*)\((.*)$")
_COMPUTATION = re.compile(r"(ENTRY )?%?(\S+) (?:\(.*\) -> .* )?\{$")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|condition|branch_computations)="
  r"(\{[^}]*\}|%?[\w.-]+)"
)
_UNCOUNTED = ("convolution", "custom-call")


def dot_flops(text: str) -> int:
  """Floating-point operations of all matrix products in a program.

  A product counts 2·m·k·n, and as often as the computation that it stands in
  is called.

  Args:
    text: an optimised HLO module, `compiled.as_text()` of a jitted function.

  Raises:
    ValueError: the program has something that may multiply matrices and that
      is not counted: a convolution, a call of a library, a product in a loop.
  """
  computations, entry = _computations(text)
  counted: dict[str, int] = {}

  def count(name: str) -> int:
    if name not in counted:
      counted[name] = sum(_flops_of(computations[name], count))
    return counted[name]

  return count(entry)


_Instructions = dict[str, tuple[str, str, str]]


def _computations(text: str) -> tuple[dict[str, _Instructions], str]:
  """({computation: {name: (shape, operation, the rest)}}, the first to run)."""
  found: dict[str, _Instructions] = {}
  entry = None
  inside: _Instructions = {}
  for line in text.splitlines():
    instruction = _INSTRUCTION.match(line)
    if instruction:
      name, *rest = instruction.groups()
      inside[name] = (rest[0], rest[1], rest[2])
      continue
    header = _COMPUTATION.match(line)
    if header:
      inside = found.setdefault(header[2], {})
      entry = header[2] if header[1] else entry
  if entry is None:
    raise ValueError("the text has no ENTRY computation: it is no HLO module")
  return found, entry


def _flops_of(
  instructions: _Instructions, count: Callable[[str], int]
) -> Iterator[int]:
  for name, (shape, operation, rest) in instructions.items():
    if operation in _UNCOUNTED:
      raise ValueError(
        f"the {operation} {name} may multiply matrices, which is not counted"
      )
    if operation == "dot":
      left = re.match(r"(?:\w+\[\S* )?%?([\w.-]+)", rest)
      axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest)
      assert left is not None
      lengths = _lengths(instructions[left[1]][0])
      summed = [int(axis) for axis in axes[1].split(",")] if axes else []
      yield 2 * math.prod(
        [*_lengths(shape), *(lengths[axis] for axis in summed)]
      )
    called = [
      inner.strip().lstrip("%")
      for names in _CALLED.findall(rest)
      for inner in names.strip("{}").split(",")
    ]
    flops = sum(map(count, called))
    if operation == "while" and flops:
      raise ValueError(
        f"the loop {name} multiplies matrices, and how often is not counted"
      )
    yield flops


def _lengths(shape: str) -> list[int]:
  """[8, 64] of f32[8,64]{1,0}."""
  inner = re.match(r"\w+\[([\d,]*)\]", shape)
  assert inner is not None, shape
  return [int(length) for length in inner[1].split(",") if length]
