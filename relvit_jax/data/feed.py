"""Batches for training and evaluation, from two feeds behind one interface.

`Resident` keeps the split on the device, where a compiled step draws its
batches; `Streaming` decodes on the host, ahead of the step. Both show the same
examples in the same order (`data.order`), so that which one a run uses changes
its speed and nothing else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array
from numpy.typing import ArrayLike

from relvit_jax.data import order, splits

# {"image": uint8 [B,H,W,3], "label": int32 [B]}, where the split has them
# "size": int32 [B,2], and while evaluating "mask": bool [B].
Batch = Mapping[str, Any]

# The last step that an iterator could be asked for.
_NO_END = 2**31 - 1
# What a block of a streaming feed may take of the host, and of a device.
_BLOCK_BYTES = 256 * 2**20


@runtime_checkable
class Examples(Protocol):
  """A part of a data set: `splits.Split` in memory, `splits.Records` not."""

  @property
  def name(self) -> str:
    """Data set and part, as printed."""
    ...

  @property
  def class_names(self) -> tuple[str, ...]:
    """Of the labels, by their number."""
    ...

  def __len__(self) -> int: ...

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(height, width, 3) of the images as they are handed out."""
    ...

  def take(self, indices: ArrayLike) -> dict[str, np.ndarray]:
    """The examples at these places, as a batch."""
    ...


class Resident:
  """The whole split on every device, as uint8.

  Args:
    split: in memory.
    batch_size: over all devices.
    max_steps: how many batches a block has at most.
    mesh: the devices.
    repeats: how often an image comes in a row.
  """

  def __init__(
    self,
    split: splits.Split,
    batch_size: int,
    max_steps: int,
    mesh: Mesh,
    repeats: int = 1,
  ):
    self.batch_size, self.max_steps = batch_size, max_steps
    self._repeats = repeats
    self._split = split
    self._mesh = mesh

  @functools.cached_property
  def _data(self) -> Batch:
    return jax.device_put(
      self._split.take(range(len(self._split))), NamedSharding(self._mesh, P())
    )

  def block(self, words: np.ndarray, step: int, count: int) -> Batch:
    """What the compiled steps from `step` on read: always the whole split."""
    del words, step, count
    return self._data

  def batches(
    self, words: Array, data: Batch, step: Array
  ) -> Callable[[Array], Batch]:
    """i → the batch of step + i, inside a compiled function."""
    chosen = order.batch_indices(
      words,
      step,
      self.max_steps,
      self.batch_size,
      len(data["image"]),
      self._repeats,
    )
    return lambda i: jax.tree.map(lambda array: array[chosen[i]], data)


class Streaming:
  """Batches decoded on the host, some of them ahead of the step.

  Args:
    examples: where they come from; picklable if there are workers.
    batch_size: over all hosts; each reads its own rows of a batch.
    max_steps: how many batches a block has at most; fewer, if so many would
      not fit into 256 MiB.
    mesh: the devices.
    num_workers: processes that decode; 0 uses threads of this one.
    repeats: how often an image comes in a row.
  """

  def __init__(
    self,
    examples: Examples,
    batch_size: int,
    max_steps: int,
    mesh: Mesh,
    num_workers: int = 0,
    repeats: int = 1,
  ):
    batch_bytes = batch_size * math.prod(examples.image_shape)
    self.batch_size = batch_size
    self.max_steps = max(1, min(max_steps, _BLOCK_BYTES // batch_bytes))
    self._examples = examples
    self._num_workers = num_workers
    self._repeats = repeats
    self._sharding = NamedSharding(mesh, P(None, mesh.axis_names))
    self._next: tuple[bytes, int] | None = None
    self._iterator: Iterator[dict[str, np.ndarray]] = iter(())

  def block(self, words: np.ndarray, step: int, count: int) -> Batch:
    """The batches of steps step, …, step + count - 1, with room for more.

    Called step after step it goes on reading; called for any other step it
    begins anew there, and finds the same batches.
    """
    if self._next != (words.tobytes(), step):
      load = functools.partial(
        _load_step,
        self._examples,
        words,
        self.batch_size,
        self._own_rows(),
        self._repeats,
      )
      self._iterator = _iterate(load, step, _NO_END, self._num_workers)
    read = [next(self._iterator) for _ in range(count)]
    self._next = words.tobytes(), step + count
    return {key: self._put([one[key] for one in read]) for key in read[0]}

  def _own_rows(self) -> slice:
    """This host's share of a batch."""
    share = self.batch_size // jax.process_count()
    first = jax.process_index() * share
    return slice(first, first + share)

  def _put(self, read: list[np.ndarray]) -> Array:
    """Stacked over steps, one shape however many there are, on the devices."""
    stacked = np.zeros((self.max_steps, *read[0].shape), read[0].dtype)
    np.stack(read, out=stacked[: len(read)])
    whole = (self.max_steps, self.batch_size, *read[0].shape[1:])
    return jax.make_array_from_process_local_data(
      self._sharding, stacked, whole
    )

  def batches(
    self, words: Array, data: Batch, step: Array
  ) -> Callable[[Array], Batch]:
    """i → the batch of step + i, inside a compiled function."""
    del words, step
    return lambda i: jax.tree.map(lambda array: array[i], data)


Feed = Resident | Streaming


def make(
  examples: Examples,
  *,
  batch_size: int,
  max_steps: int,
  mesh: Mesh,
  num_workers: int = 0,
  stream: bool = False,
  repeats: int = 1,
) -> Feed:
  """A resident feed for what is in memory, a streaming one for what is not.

  Args:
    examples: of the training split.
    batch_size: over all hosts.
    max_steps: how many batches a block has at most.
    mesh: the devices.
    num_workers: processes that decode for a streaming feed.
    stream: whether to stream even what is in memory.
    repeats: how often an image comes in a row, as `order.batch_indices` says.
  """
  if isinstance(examples, splits.Split) and not stream:
    return Resident(examples, batch_size, max_steps, mesh, repeats)
  return Streaming(examples, batch_size, max_steps, mesh, num_workers, repeats)


def words_of(key: Array) -> Array:
  """The 64 bits from which a run's order follows, uint32 [2]."""
  return jax.random.bits(key, (2,), jnp.uint32)


def evaluation_batches(
  examples: Examples, batch_size: int, num_workers: int = 0
) -> Iterator[Batch]:
  """The split in order, in batches of one size.

  The last is filled up; "mask" is false where an example is such a filling.
  """
  load = functools.partial(_load_in_order, examples, batch_size)
  num_batches = -(-len(examples) // batch_size)
  if isinstance(examples, splits.Split):
    return map(load, range(num_batches))
  return _iterate(load, 0, num_batches, num_workers)


def _load_step(
  examples: Examples,
  words: np.ndarray,
  batch_size: int,
  rows: slice,
  repeats: int,
  step: int,
) -> dict[str, np.ndarray]:
  [chosen] = order.batch_indices(
    words, step, 1, batch_size, len(examples), repeats
  )
  return examples.take(chosen[rows])


def _load_in_order(
  examples: Examples, batch_size: int, index: int
) -> dict[str, np.ndarray]:
  places = np.arange(index * batch_size, (index + 1) * batch_size)
  # A filling repeats a real example, so that no model sees what never is.
  batch = examples.take(np.minimum(places, len(examples) - 1))
  return batch | {"mask": places < len(examples)}


def _iterate(
  load: Callable[[int], dict[str, np.ndarray]],
  start: int,
  stop: int,
  num_workers: int,
) -> Iterator[dict[str, np.ndarray]]:
  """load(start), load(start + 1), … computed ahead, in this order."""
  import grain

  ahead = 2 + num_workers
  batches = (
    grain.MapDataset.range(start, stop)
    .map(load)
    .to_iter_dataset(
      grain.ReadOptions(num_threads=2, prefetch_buffer_size=ahead)
    )
  )
  if num_workers:
    from absl import flags

    # Grain's workers read absl's flags, which only an absl program parses.
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()
    batches = batches.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=num_workers)
    )
  return iter(batches)
