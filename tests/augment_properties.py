"""What holds for every random change of images, and images to change."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

_COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective")


def keys(count=3, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def numbered(batch=3, size=8):
  """Images whose every pixel is another value, in all channels."""
  count = size * size
  image = np.arange(1, count + 1, dtype=np.uint8).reshape(1, size, size, 1)
  return jnp.asarray(np.broadcast_to(image, (batch, size, size, 3)))


def check_keys_alone_decide(change, images):
  """An image is changed by its key, whoever stands beside it."""
  count = len(images)
  together = change(keys(count), images)
  mixed = np.random.default_rng(0).permutation(count)
  np.testing.assert_array_equal(
    change(keys(count)[mixed], images[mixed]), together[mixed]
  )
  assert not np.array_equal(together, change(keys(count, seed=1), images))


def check_devices_say_nothing(change, images):
  """Eight devices share a batch without a word between them."""
  mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
  shares = jax.device_put(
    (keys(len(images)), images), NamedSharding(mesh, PartitionSpec("data"))
  )
  program = change.lower(*shares).compile()
  text = program.as_text()
  assert [word for word in _COLLECTIVES if word in text] == []
  np.testing.assert_allclose(
    program(*shares), change(keys(len(images)), images), rtol=1e-5, atol=1e-6
  )
