"""Reads what a compiled program multiplies from its text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

# [ROOT] %dot.5 = f32[8,64,96]{2,1,0} dot(%x, %y), lhs_contracting_dims={2}, …
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?(\S+) = (.+?) ([a-z][\w-]*)\((.*)$")
_COMPUTATION = re.compile(r"(ENTRY )?%?(\S+) (?:\(.*\) -> .* )?\{$")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|condition|branch_computations)="
  r"(\{[^}]*\}|%?[\w.-]+)"
)
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_UNCOUNTED = ("convolution", "custom-call")


class Instruction(NamedTuple):
  """What one instruction of a compiled program does when it runs.

  Attributes:
    operation: such as fusion.
    flops: of the products in it; 0 of calls of libraries, which do not tell.
    is_batched: whether a product in it is many small ones.
    names: what JAX called it and what it is made of, products first.
  """

  operation: str
  flops: int
  is_batched: bool
  names: tuple[str, ...]


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


def instructions(text: str) -> dict[str, Instruction]:
  """All of a program, by name, those in loops and calls included.

  Args:
    text: as of `dot_flops`.
  """
  computations, _ = _computations(text)
  return {
    name: _described(name, inside, computations)
    for inside in computations.values()
    for name in inside
  }


_Instructions = dict[str, tuple[str, str, str]]


def _described(
  name: str, inside: _Instructions, computations: dict[str, _Instructions]
) -> Instruction:
  operation, rest = inside[name][1:]
  parts = [(inside, name)]
  if operation in ("fusion", "call"):
    for called in _called(rest):
      parts += [(computations[called], inner) for inner in computations[called]]
  products = [(where, one) for where, one in parts if where[one][1] == "dot"]
  names = [
    found[1]
    for where, one in [*products, *parts]
    if (found := _OP_NAME.search(where[one][2]))
  ]
  return Instruction(
    operation,
    sum(
      _of_dot(where[one][0], where[one][2], where) for where, one in products
    ),
    any(
      re.search(r"lhs_batch_dims=\{\d", where[one][2])
      for where, one in products
    ),
    tuple(names),
  )


def _called(rest: str) -> list[str]:
  return [
    inner.strip().lstrip("%")
    for names in _CALLED.findall(rest)
    for inner in names.strip("{}").split(",")
  ]


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
      yield _of_dot(shape, rest, instructions)
    flops = sum(map(count, _called(rest)))
    if operation == "while" and flops:
      raise ValueError(
        f"the loop {name} multiplies matrices, and how often is not counted"
      )
    yield flops


def _of_dot(shape: str, rest: str, instructions: _Instructions) -> int:
  left = re.match(r"(?:\w+\[\S* )?%?([\w.-]+)", rest)
  axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest)
  assert left is not None
  lengths = _lengths(instructions[left[1]][0])
  summed = [int(axis) for axis in axes[1].split(",")] if axes else []
  return 2 * math.prod([*_lengths(shape), *(lengths[axis] for axis in summed)])


def _lengths(shape: str) -> list[int]:
  """[8, 64] of f32[8,64]{1,0}."""
  inner = re.match(r"\w+\[([\d,]*)\]", shape)
  assert inner is not None, shape
  return [int(length) for length in inner[1].split(",") if length]
