"""Something to measure: work that one dispatch does any number of times."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relvit_jax.analysis import timing
from relvit_jax.training import repeating

# Steps that a dispatch of a part may take whose loop has no bound; where each
# number of them needs a program, it takes so many and never less.
MANY, _FIXED = 2**12, 2**6


class Part(NamedTuple):
  """What can be done again and again.

  Attributes:
    name: of `NAMES`.
    call: does it so many times, and returns arrays to wait for.
    most: how often a call can do it.
    least: how often it must, for what it does once to be a small part.
    program: how often → what was compiled for that; None where it is the host's
      work.
  """

  name: str
  call: Callable[[int], Any]
  most: int
  least: int = 1
  program: Callable[[int], Any] | None = None

  def clock(self, count: int) -> timing.Clock:
    """Does it so many times, and says how long that took."""
    return timing.clocked(lambda: self.call(count))

  @property
  def planned_bytes(self) -> int | None:
    """What the compiled program needs of a device, its arguments included."""
    if self.program is None:
      return None
    plan = self.program(self.least).memory_analysis()
    return (
      plan.argument_size_in_bytes
      + plan.output_size_in_bytes
      - plan.alias_size_in_bytes
      + plan.temp_size_in_bytes
    )


def stepping(
  name: str, program: Any, held: list[Any], data: Any, most: int, least: int = 1
) -> Part:
  """A part that trains; `held` has the state, which calls of others move on."""

  def call(count: int) -> Any:
    held[0], measured = program(held[0], data, np.int32(count))
    return measured

  def compiled(count: int) -> Any:
    return program.lower(held[0], data, np.int32(count)).compile()

  return Part(name, call, most, least, compiled)


def dispatches(count: int, most: int) -> Iterator[int]:
  """20, 20, 5 of 45 and 20."""
  ends = itertools.chain(range(0, count, most), [count])
  for begun, ended in itertools.pairwise(ends):
    yield ended - begun


def carried(
  name: str,
  many: Callable[..., Any],
  given: tuple[Any, ...],
  carry: Any,
  most: int = MANY,
  least: int = 1,
) -> Part:
  """A part whose steps hand something on, from call to call too.

  Args:
    name: of the part.
    many: (*given, what is handed on, a number that is another in every call,
      steps) → what is handed on.
    given: arrays.
    carry: what the first step is handed.
    most, least: steps of a call.
  """
  # What is handed on is overwritten, and others may need it.
  carry, seed = jax.jit(lambda all: jax.tree.map(jnp.copy, all))(carry), 0
  platform = jax.devices()[0].platform
  if repeating.is_fixed(platform):
    most = least = min(most, max(least, _FIXED))
  program = repeating.jit(many, platform, donate_argnums=len(given))

  def call(count: int) -> Any:
    nonlocal carry, seed
    carry = program(*given, carry, np.int32(seed), np.int32(count))
    seed = (seed + count) % 2**20
    return carry

  def compiled(count: int) -> Any:
    return program.lower(*given, carry, np.int32(0), np.int32(count)).compile()

  return Part(name, call, most, least, compiled)
