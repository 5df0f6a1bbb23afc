"""What happens to a batch on the device, as pure functions of (key, batch)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped, UInt8

from relvit_jax import grid


def normalise(
  images: UInt8[Array, "B H W C"],
  mean: Float[np.ndarray, " C"],
  std: Float[np.ndarray, " C"],
) -> Float[Array, "B H W C"]:
  """Pixels 0..255 → (pixel / 255 - mean) / std, as one multiply and one add."""
  scale = (1 / (255 * std)).reshape(1, 1, 1, -1)
  shift = (-mean / std).reshape(1, 1, 1, -1)
  return images.astype(jnp.float32) * scale + shift


def pad_crop(
  key: PRNGKeyArray, images: Shaped[Array, "B H W C"], padding: int
) -> Shaped[Array, "B H W C"]:
  """Shifts each image by up to `padding` pixels; what comes in is black."""
  if padding < 0:
    raise ValueError(f"data.crop_padding={padding} must not be negative")
  if padding == 0:
    return images
  batch, height, width, channels = images.shape
  pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
  padded = jnp.pad(images, pads)
  corners = jax.random.randint(key, (batch, 2), 0, 2 * padding + 1)

  def crop(image: Array, corner: Array) -> Array:
    return jax.lax.dynamic_slice(
      image, (corner[0], corner[1], 0), (height, width, channels)
    )

  return jax.vmap(crop)(padded, corners)


def permute_patches(
  key: PRNGKeyArray, images: Shaped[Array, "B H W C"], patch_size: int
) -> tuple[Shaped[Array, "B H W C"], Int[Array, "B N"]]:
  """Shows the patches of each image in an order of its own.

  Returns:
    The images, and the patch that image b now shows at place i: pixels and
    targets follow the same order.
  """
  patches = grid.patchify(images, patch_size)
  batch, num_patches, _ = patches.shape
  order = jax.vmap(lambda k: jax.random.permutation(k, num_patches))(
    jax.random.split(key, batch)
  )
  shown = jnp.take_along_axis(patches, order[:, :, None], axis=1)
  _, height, width, _ = images.shape
  grid_size = grid.grid_of((height, width), patch_size)
  return grid.unpatchify(shown, grid_size, patch_size), order
