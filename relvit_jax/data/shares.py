"""Which rows of a batch this process reads, and how they become one array.

Batches are spread over the devices of all processes. Which rows lie on which
follows from the mesh, whose order need not be that of the processes: on a TPU
it is that of the chips' neighbourhood.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array


class Share:
  """The rows of this process.

  Attributes:
    rows: from 0 to the size of a batch; several spans where the mesh has them
      apart.
    count: how many rows that are.
  """

  def __init__(self, mesh: Mesh, batch_size: int):
    """Of batches that all axes of the mesh share evenly."""
    self._mesh, self._batch_size = mesh, batch_size
    placed = self.sharding(0).addressable_devices_indices_map((batch_size,))
    spans: list[slice] = []
    indices: list[Any] = list(placed.values())
    held = {span.indices(batch_size)[:2] for (span,) in indices}
    for start, stop in sorted(held):
      if spans and spans[-1].stop == start:
        spans[-1] = slice(spans[-1].start, stop)
      else:
        spans.append(slice(start, stop))
    self.rows = spans
    self.count = sum(span.stop - span.start for span in spans)

  def place(self, row: int) -> int:
    """Where a row of the batch stands among the rows of this process."""
    before = 0
    for span in self.rows:
      if span.start <= row < span.stop:
        return before + row - span.start
      before += span.stop - span.start
    raise ValueError(f"row {row} is none of this process's: {self.rows}")

  def put(self, own: np.ndarray, axis: int = 0) -> Array:
    """This process's rows, on its devices, as its part of the whole array.

    Args:
      own: with `count` rows along the axis.
    """
    shape = (*own.shape[:axis], self._batch_size, *own.shape[axis + 1 :])

    def part(index: Any) -> np.ndarray:
      start, stop, _ = index[axis].indices(self._batch_size)
      first = self.place(start)
      return own[(*index[:axis], slice(first, first + stop - start))]

    return jax.make_array_from_callback(shape, self.sharding(axis), part)

  def sharding(self, axis: int) -> NamedSharding:
    """Of an array whose rows lie along the axis."""
    spec: list[Any] = [None] * axis
    return NamedSharding(self._mesh, P(*spec, self._mesh.axis_names))
