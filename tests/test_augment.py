"""Augmentations move pixels, and with them the targets."""

import jax
import jax.numpy as jnp
import numpy as np

from relvit_jax import grid
from relvit_jax.data import augment


def numbered(batch=3, size=8):
  """Images whose every pixel is another value, in all channels."""
  count = size * size
  image = np.arange(1, count + 1, dtype=np.uint8).reshape(1, size, size, 1)
  return jnp.asarray(np.broadcast_to(image, (batch, size, size, 3)))


def test_normalise_takes_the_mean_and_divides_by_the_deviation():
  images = jnp.full((1, 1, 1, 3), 255, jnp.uint8)
  mean = np.array([0.5, 0.25, 1.0], np.float32)
  std = np.array([0.5, 0.25, 2.0], np.float32)
  np.testing.assert_allclose(
    augment.normalise(images, mean, std)[0, 0, 0], [1, 3, 0], atol=1e-6
  )


def test_pad_crop_shifts_within_the_padding():
  images = numbered(batch=400)
  cropped = np.asarray(augment.pad_crop(jax.random.key(0), images, 1))
  padded = np.pad(np.asarray(images[0]), ((1, 1), (1, 1), (0, 0)))
  windows = [padded[y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
  seen = {
    next(i for i, window in enumerate(windows) if (window == image).all())
    for image in cropped
  }
  assert seen == set(range(9))


def test_no_padding_changes_nothing():
  images = numbered()
  assert augment.pad_crop(jax.random.key(0), images, 0) is images


def test_permuted_pixels_and_permutation_say_the_same():
  images = numbered()
  shown, order = augment.permute_patches(jax.random.key(0), images, 2)
  assert (np.sort(order, axis=1) == np.arange(16)).all()
  assert len(np.unique(order, axis=0)) == 3  # An order for each image.
  before = np.asarray(grid.patchify(images, 2))
  after = np.asarray(grid.patchify(shown, 2))
  for image in range(3):
    np.testing.assert_array_equal(after[image], before[image][order[image]])


def test_the_key_decides():
  images = numbered()
  for change in (
    lambda key: augment.pad_crop(key, images, 2),
    lambda key: augment.permute_patches(key, images, 2)[0],
  ):
    first = change(jax.random.key(0))
    np.testing.assert_array_equal(first, change(jax.random.key(0)))
    assert not np.array_equal(first, change(jax.random.key(1)))
