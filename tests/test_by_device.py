"""Each device of a mesh works on the rows that it has."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from relvit_jax.models import by_device
from relvit_jax.training import partitioning


def kernel(interpreted, rows, column):
  """Says by its sign where it runs, and how many rows it sees."""
  sign = 1 if interpreted else -1
  return sign * len(rows) * rows * column[None]


def test_without_a_mesh_it_sees_all_rows():
  made = by_device.call(kernel, "tpu", jnp.ones((16, 2)), jnp.ones(2))
  np.testing.assert_array_equal(made, np.full((16, 2), 16))


def test_on_its_own_platform_it_is_compiled():
  made = by_device.call(kernel, "cpu", jnp.ones((16, 2)), jnp.ones(2))
  np.testing.assert_array_equal(made, np.full((16, 2), -16))


def test_on_a_mesh_each_device_sees_its_own_and_the_whole_column():
  mesh = partitioning.make_mesh(fsdp=2)
  rows = jax.device_put(
    jnp.ones((16, 3)), NamedSharding(mesh, P(partitioning.DATA_AXES))
  )

  def called(rows):
    return by_device.call(kernel, "tpu", rows, jnp.arange(3.0), whole=(1,))

  made = jax.jit(partitioning.on_mesh(called, mesh))(rows)
  np.testing.assert_array_equal(made, np.tile(2 * np.arange(3.0), (16, 1)))
