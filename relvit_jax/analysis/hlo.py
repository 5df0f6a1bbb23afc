"""Reads what a compiled program multiplies from its text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from relvit_jax.analysis import hlo_text
from relvit_jax.analysis.hlo_text import Computation

_UNCOUNTED = ("convolution", "custom-call")
# The axes of a product: of a dot, or of a call of NVIDIA's cuBLAS.
_SUMMED = re.compile(r"lhs_contracting_dim(?:s=\{|ensions\":\[)([\d,\"]*)[\]}]")
_BATCHED = re.compile(r"lhs_batch_dim(?:s=\{|ensions\":\[\")\d")


class Instruction(NamedTuple):
  """What one instruction of a compiled program does when it runs.

  Attributes:
    operation: such as fusion.
    flops: of the products in it; 0 of calls of libraries that do not tell.
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
  program = hlo_text.parse(text)
  counted: dict[str, int] = {}

  def count(name: str) -> int:
    if name not in counted:
      counted[name] = sum(_flops_of(program.computations[name], count))
    return counted[name]

  return count(program.entry)


def instructions(text: str) -> dict[str, Instruction]:
  """All of a program, by name, those in loops and calls included.

  Args:
    text: as of `dot_flops`.
  """
  computations = hlo_text.parse(text).computations
  return {
    name: _described(name, inside, computations)
    for inside in computations.values()
    for name in inside
  }


def _described(
  name: str, inside: Computation, computations: dict[str, Computation]
) -> Instruction:
  line = inside[name]
  parts = [(inside, line)]
  if line.operation in ("fusion", "call"):
    for called in line.called:
      where = computations[called]
      parts += [(where, inner) for inner in where.values()]
  products = [(where, one) for where, one in parts if _is_product(one)]
  names = [one.op_name for _, one in [*products, *parts]]
  return Instruction(
    line.operation,
    sum(_of_dot(one, where) for where, one in products),
    any(_BATCHED.search(one.rest) for _, one in products),
    tuple(name for name in names if name),
  )


def _flops_of(
  instructions: Computation, count: Callable[[str], int]
) -> Iterator[int]:
  for name, line in instructions.items():
    operation = line.operation
    if _is_product(line):
      yield _of_dot(line, instructions)
    elif operation in _UNCOUNTED:
      raise ValueError(
        f"the {operation} {name} may multiply matrices, which is not counted"
      )
    flops = sum(map(count, line.called))
    if operation == "while" and flops:
      raise ValueError(
        f"the loop {name} multiplies matrices, and how often is not counted"
      )
    yield flops


def _is_product(line: hlo_text.Line) -> bool:
  return line.operation == "dot" or '="__cublas$' in line.rest


def _of_dot(line: hlo_text.Line, instructions: Computation) -> int:
  axes = _SUMMED.search(line.rest)
  # Behind what it makes, a call of cuBLAS has its room to work in.
  made = hlo_text.arrays(line.shape)[0]
  [left] = hlo_text.arrays(instructions[line.operands[0]].shape)
  summed = [
    left.lengths[int(axis)]
    for axis in re.findall(r"\d+", axes[1] if axes else "")
  ]
  return 2 * math.prod([*made.lengths, *summed])
