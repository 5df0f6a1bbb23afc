"""Rows of a batch: which a process reads, and where they lie afterwards."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from relvit_jax.data import shares
from relvit_jax.training import partitioning


def share(*, fsdp=1, batch_size=16):
  return shares.Share(partitioning.make_mesh(fsdp), batch_size)


@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_one_process_reads_all(fsdp):
  found = share(fsdp=fsdp)
  assert (found.rows, found.count) == ([slice(0, 16)], 16)


class Elsewhere(shares.Share):
  """As another process would see it: only some of the devices are its own."""

  def __init__(self, mesh, batch_size, own):
    self._own = set(own)
    super().__init__(mesh, batch_size)

  def sharding(self, axis):
    sharding, own = super().sharding(axis), self._own

    class Partly:
      def addressable_devices_indices_map(self, shape):
        everything = sharding.devices_indices_map(shape)
        return {d: at for d, at in everything.items() if d.id in own}

    return Partly()


@pytest.mark.parametrize(
  ("own", "rows"),
  [
    ([4, 5, 6, 7], [slice(8, 16)]),
    # Of a mesh that follows the chips' neighbourhood and not the processes.
    ([0, 1, 4, 5], [slice(0, 4), slice(8, 12)]),
  ],
)
def test_rows_are_those_of_the_devices(own, rows):
  found = Elsewhere(partitioning.make_mesh(), 16, own)
  assert found.rows == rows
  assert found.count == 8
  assert found.place(rows[-1].start) == found.count - (
    rows[-1].stop - rows[-1].start
  )


def test_rows_of_others_have_no_place():
  found = Elsewhere(partitioning.make_mesh(), 16, [4, 5, 6, 7])
  with pytest.raises(ValueError, match=r"row 7 is none of this process's"):
    found.place(7)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mesh_in_any_order_gets_every_row_in_its_place(axis):
  devices = np.array(jax.devices())[[3, 1, 0, 2, 7, 5, 6, 4]].reshape(4, 2)
  mesh = Mesh(devices, partitioning.DATA_AXES)
  whole = np.arange(3 * 16).reshape((16, 3) if axis == 0 else (3, 16))
  placed = shares.Share(mesh, 16).put(whole, axis)
  np.testing.assert_array_equal(placed, whole)
  assert {part.data.shape[axis] for part in placed.addressable_shards} == {2}
