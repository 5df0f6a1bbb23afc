"""In which order the examples are seen: a pure function of the step.

The examples are a stream: one random order of the whole split after another,
cut into batches. A batch may therefore end one epoch and begin the next; every
epoch shows each example once, no batch is ragged, none is dropped. With
repeats an epoch is as long, and shows the first part of its order that often.

The same integers come out on a device, inside a compiled step, and from NumPy
in a worker process that has no device: a resident and a streaming feed show the
same examples, and any place in a run is found without walking there.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer, UInt32

# NumPy in, NumPy out; JAX in, JAX out.
Arrays = TypeVar("Arrays", np.ndarray, jax.Array)

# The fractional part of the golden ratio: the rounds' keys lie far apart.
_STRIDE = 0x9E3779B9


def check_on_device(batch_size: int, num_examples: int) -> None:
  """Raises unless a device, which counts in int32, can draw such batches."""
  if batch_size * num_examples >= 2**31:
    raise ValueError(
      f"batch_size={batch_size} times {num_examples} examples must stay below "
      "2^31 on a device; use data.feed='streaming'"
    )


def batch_indices(
  words: UInt32[Arrays, " 2"],
  first_step: Any,
  num_steps: int,
  batch_size: int,
  num_examples: int,
  repeats: int = 1,
) -> Integer[Arrays, "steps B"]:
  """The examples of the batches of steps first_step, first_step + 1, …

  Args:
    words: 64 random bits of the run.
    first_step: scalar, counted from the start of the run; may be traced.
    num_steps: how many batches to return.
    repeats: how often an example comes in a row (Hoffer et al., 2020). Its
      repetitions lie apart in the batch: no neighbours, which mixing pairs.

  Raises:
    ValueError: on a device, batch_size · num_examples is beyond int32.
  """
  xp = _namespace(words)
  if xp is jnp:
    check_on_device(batch_size, num_examples)
  steps = xp.asarray(first_step) + xp.arange(num_steps)
  # num_examples steps see the split batch_size times over, so that no product
  # grows with the length of the run.
  seen = steps % num_examples * batch_size
  inside = xp.arange(batch_size)
  if repeats > 1:
    inside = inside // 2 + inside % 2 * -(-batch_size // 2)
  place = (seen % num_examples)[:, None] + inside[None]
  epoch = steps // num_examples * batch_size + seen // num_examples
  epoch = epoch[:, None] + place // num_examples
  place = place % num_examples // repeats
  return shuffled(words, epoch, place, num_examples)


def shuffled(
  words: UInt32[Arrays, " 2"],
  epoch: Integer[Arrays, "*S"],
  place: Integer[Arrays, "*S"],
  num_examples: int,
) -> Integer[Arrays, "*S"]:
  """The example at a place of an epoch's random order.

  A swap-or-not shuffle (Hoang, Morris and Rogaway, 2012): a round pairs each
  number with its mirror image at a random pivot and swaps the two or not, by
  one bit that both agree on. Any number of rounds is a permutation; six for
  each bit of `num_examples` make it look random.

  Args:
    words: 64 random bits of the run.
    epoch: which order.
    place: from 0 to num_examples - 1.
  """
  xp = _namespace(words)
  size = np.uint32(num_examples)
  rounds = 6 * max(4, num_examples.bit_length())
  key = _mix(_mix(epoch.astype(np.uint32) ^ words[0]) + words[1])

  def swap_or_not(index: Any, number: Arrays) -> Arrays:
    index = xp.asarray(index, np.uint32)
    pivot = _mix(key + index * np.uint32(_STRIDE))
    mirror = pivot % size + size - number
    mirror = xp.where(mirror >= size, mirror - size, mirror)
    agreed = _mix(xp.maximum(number, mirror) * np.uint32(_STRIDE) ^ pivot)
    return xp.where(agreed >> np.uint32(31) == 1, mirror, number)

  number: Any = place.astype(np.uint32)
  if xp is jnp:
    number = jax.lax.fori_loop(0, rounds, swap_or_not, number)
  else:
    for index in range(rounds):
      number = swap_or_not(index, number)
  return number.astype(np.int32)


def _mix(bits: UInt32[Arrays, "*S"]) -> UInt32[Arrays, "*S"]:
  """A bijection of 32 bits in which every input bit moves every output bit.

  Source: Chris Wellons, "Prospecting for hash functions", lowbias32.
  """
  bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x21F0AAAD)
  bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(0xD35A2D97)
  return bits ^ (bits >> np.uint32(15))


def _namespace(array: np.ndarray | jax.Array) -> ModuleType:
  return jnp if isinstance(array, jax.Array) else np
