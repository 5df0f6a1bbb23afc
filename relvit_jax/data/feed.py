"""In which order a split is seen: a pure function of the step.

The examples are a stream: one random order of the whole split after another,
cut into batches. A batch may therefore end one epoch and begin the next; every
epoch shows each example once, no batch is ragged, none is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from relvit_jax.data import sources

# {"image": uint8 [B,H,W,3], "label": [B]}, on the host or on the device.
Batch = Mapping[str, Any]


def batch_indices(
  key: PRNGKeyArray,
  first_step: Int[Array, ""],
  num_steps: int,
  batch_size: int,
  num_examples: int,
) -> Int[Array, "steps B"]:
  """The examples of the batches of steps first_step, first_step + 1, …

  Args:
    key: of the run; epoch e is drawn from `fold_in(key, e)`.
    first_step: counted from the start of the run; may be traced.
    num_steps: how many batches to return.
  """
  span = num_steps * batch_size
  # Epoch and place in it, without a product that overflows in a long run:
  # a step is (whole epochs) + (a remainder below num_examples).
  first = _position(first_step, batch_size, num_examples)
  place = first[1] + jnp.arange(span)
  epochs = (span - 2) // num_examples + 2  # The most that a span can touch.
  orders = jax.vmap(
    lambda epoch: jax.random.permutation(
      jax.random.fold_in(key, epoch), num_examples
    )
  )(first[0] + jnp.arange(epochs))
  return orders[place // num_examples, place % num_examples].reshape(
    num_steps, batch_size
  )


def _position(
  step: Int[Array, ""], batch_size: int, num_examples: int
) -> tuple[Array, Array]:
  """(epoch, place in it) of a step's first example."""
  # num_examples steps see the split batch_size times over.
  rounds, step = step // num_examples, step % num_examples
  seen = step * batch_size
  return rounds * batch_size + seen // num_examples, seen % num_examples


def evaluation_batches(
  split: sources.Split, batch_size: int
) -> Iterator[Batch]:
  """The split in order, in batches of one size.

  The last is filled up; "mask" is false where an example is such a filling.
  """
  for start in range(0, len(split), batch_size):
    images = split.images[start : start + batch_size]
    labels = split.labels[start : start + batch_size]
    missing = batch_size - len(images)
    yield {
      "image": np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))),
      "label": np.pad(labels, (0, missing)),
      "mask": np.arange(batch_size) < len(images),
    }
