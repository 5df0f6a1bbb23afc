"""Batches for training, from two feeds behind one interface.

`Resident` keeps the split on the device, where a compiled step draws its
batches; `Streaming` decodes on the host, ahead of the step. Both show the same
examples in the same order (`data.order`), so that which one a run uses changes
its speed and nothing else, unless images are cropped as they are decoded: then
a stream shows parts of the whole images, drawn by the host, where the other
shows parts of stored squares, drawn by the device.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Generator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from relvit_jax.data import loading, order, read_ahead, shares, splits

# {"image": uint8 [B,H,W,3], "label": int32 [B]}; "size": int32 [B,2], of images
# that were squashed; "box": float32 [B,4], of images that were cropped as they
# were decoded, and are as they are shown; while evaluating "mask": bool [B].
Batch = Mapping[str, Any]
Examples = loading.Examples
Pieces = Generator[dict[str, np.ndarray], None, None]

# Of a run that asks for nothing.
_NO_WORDS = np.zeros(2, np.uint32)
# The last step that an iterator could be asked for.
_NO_END = 2**31 - 1
# What a block of a streaming feed may take of a device; its host has as much
# for each of its devices, and again for the next one.
_BLOCK_BYTES = 256 * 2**20


class Resident:
  """The whole split on every device, as uint8.

  Args:
    split: in memory.
    batch_size: over all devices.
    max_steps: how many batches a block has at most.
    mesh: the devices.
    repeats: how often an image comes in a row.

  Raises:
    ValueError: the batch is too large to be drawn on a device.
  """

  def __init__(
    self,
    split: splits.Split,
    batch_size: int,
    max_steps: int,
    mesh: Mesh,
    repeats: int = 1,
  ):
    order.check_on_device(batch_size, len(split))
    self.batch_size, self.max_steps = batch_size, max_steps
    self._repeats = repeats
    self._split = split
    self._mesh = mesh

  @functools.cached_property
  def _data(self) -> Batch:
    everywhere = NamedSharding(self._mesh, P())
    # Of several processes each has read it: nothing is sent between them, as
    # `device_put` would to compare.
    return {
      key: jax.make_array_from_callback(
        value.shape, everywhere, lambda index, value=value: value[index]
      )
      for key, value in self._rows(np.arange(len(self._split))).items()
    }

  def _rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """The examples, an image in a row.

    Three channels in an axis of their own, or the 32 pixels of a small image's,
    a TPU spreads over room for 128: four times the memory for CIFAR's images,
    and a copy of all of them in every dispatch.
    """
    taken = self._split.take(indices)
    return taken | {
      "image": taken["image"].reshape(
        len(indices), math.prod(taken["image"].shape[1:])
      )
    }

  def block(self, words: np.ndarray, step: int, count: int) -> Batch:
    """What the compiled steps from `step` on read: always the whole split."""
    del words, step, count
    return self._data

  def outline(self) -> Batch:
    """The shapes and shardings of what `block` gives; reads no pixel."""
    everywhere = NamedSharding(self._mesh, P())
    return {
      key: jax.ShapeDtypeStruct(
        (len(self._split), *value.shape[1:]), value.dtype, sharding=everywhere
      )
      for key, value in self._rows(np.arange(0)).items()
    }

  def close(self) -> None:
    """Nothing reads ahead."""

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

    def batch(i: Array) -> Batch:
      rows = {key: array[chosen[i]] for key, array in data.items()}
      shape = self.batch_size, *self._split.image_shape
      return rows | {"image": rows["image"].reshape(shape)}

    return batch


class Streaming:
  """Batches decoded on the host, ahead of the step.

  While the device works on one block, all of the next is read.

  Args:
    examples: where they come from; picklable if there are workers.
    batch_size: over all processes; each reads its own rows of a batch.
    max_steps: how many batches a block has at most; fewer, if so many would
      not fit into 256 MiB of each device.
    mesh: the devices.
    num_workers: processes that decode; 0 uses threads of this one.
    repeats: how often an image comes in a row.

  Attributes:
    batch_size, max_steps, num_workers: as above.
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
    image_bytes = math.prod(loading.shape(examples))
    most = _BLOCK_BYTES // (batch_size // mesh.size * image_bytes)
    self.batch_size, self.num_workers = batch_size, num_workers
    self.max_steps = max(1, min(max_steps, most))
    self._examples = examples
    self._repeats = repeats
    self._share = shares.Share(mesh, batch_size)
    self._parts = [
      part
      for rows in self._share.rows
      for part in read_ahead.cut(rows, image_bytes)
    ]
    self._next: tuple[bytes, int] | None = None
    self._iterator: Pieces | None = None

  def block(self, words: np.ndarray, step: int, count: int) -> Batch:
    """The batches of steps step, …, step + count - 1, with room for more.

    Called step after step it goes on reading; called for any other step it
    begins anew there, and finds the same batches.
    """
    if self._iterator is None or self._next != (words.tobytes(), step):
      self.close()
      self._iterator = self._read(words, step)
    # Forgotten until all is there: what fails begins anew.
    self._next = None
    room: dict[str, np.ndarray] = {}
    for i in range(count):
      for part in self._parts:
        for key, value in next(self._iterator).items():
          if key not in room:
            shape = (self.max_steps, self._share.count, *value.shape[1:])
            room[key] = np.zeros(shape, value.dtype)
          first = self._share.place(part.start)
          room[key][i, first : first + len(value)] = value
    self._next = words.tobytes(), step + count
    return {key: self._share.put(value, 1) for key, value in room.items()}

  def outline(self) -> Batch:
    """The shapes and shardings of what `block` gives; reads no pixel."""
    rows = loading.training_rows(
      self._examples, _NO_WORDS, self.batch_size, self._repeats, 0, slice(0, 0)
    )
    return {
      key: jax.ShapeDtypeStruct(
        (self.max_steps, self.batch_size, *value.shape[1:]),
        value.dtype,
        sharding=self._share.sharding(1),
      )
      for key, value in rows.items()
    }

  def close(self) -> None:
    """Ends what reads ahead; `block` begins it again."""
    if self._iterator is not None:
      self._iterator.close()
    self._iterator = self._next = None

  def _read(self, words: np.ndarray, step: int) -> Pieces:
    return read_ahead.pieces(
      functools.partial(
        loading.training_rows,
        self._examples,
        words,
        self.batch_size,
        self._repeats,
      ),
      self._parts,
      range(step, _NO_END),
      ahead=self.max_steps * len(self._parts),
      num_workers=self.num_workers,
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
  num_workers: int | None = 0,
  stream: bool = False,
  repeats: int = 1,
) -> Feed:
  """A resident feed for what is in memory, a streaming one for what is not.

  Args:
    examples: of the training split.
    batch_size: over all hosts.
    max_steps: how many batches a block has at most.
    mesh: the devices.
    num_workers: processes that decode for a streaming feed; 0: threads; None:
      as `read_ahead.workers` finds best.
    stream: whether to stream even what is in memory.
    repeats: how often an image comes in a row, as `order.batch_indices` says.
  """
  if isinstance(examples, splits.Split) and not stream:
    return Resident(examples, batch_size, max_steps, mesh, repeats)
  workers = read_ahead.workers(num_workers)
  return Streaming(examples, batch_size, max_steps, mesh, workers, repeats)


def words_of(key: Array) -> Array:
  """The 64 bits from which a run's order follows, uint32 [2]."""
  return jax.random.bits(key, (2,), jnp.uint32)
