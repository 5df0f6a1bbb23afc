"""Random erasing: a box of noise in some images (Zhong et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from relvit_jax.data import augment

# As often timm draws a box before it leaves an image alone.
_TRIES = 10


def random_erase(
  keys: Key[Array, " B"],
  images: Float[Array, "B H W C"],
  probability: float | int = 0.25,
  *,
  area: Sequence[float | int] = (0.02, 1 / 3),
  ratio: Sequence[float | int] = (0.3, 1 / 0.3),
) -> Float[Array, "B H W C"]:
  """Puts normal noise, of each pixel and channel its own, into a random box.

  timm 0.9.16's RandomErasing in mode "pixel" with one box.

  Args:
    keys: of each example.
    images: normalised, so that the noise has the images' mean and deviation.
    probability: that an image is changed.
    area: smallest and largest share of the image that a box covers.
    ratio: smallest and largest height / width of a box.
  """
  augment.check_share("probability", probability)
  for name, (low, high) in (("area", area), ("ratio", ratio)):
    if not 0 < low <= high:
      raise ValueError(f"{name}={(low, high)} must be above 0 and ascend")
  of_box, of_noise = augment.subkeys(keys, 2)
  boxes = draw_boxes(of_box, images.shape[1:3], probability, area, ratio)
  inside = in_boxes(boxes, images.shape[1:3])
  noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(
    of_noise
  )
  return jnp.where(inside[..., None], noise.astype(images.dtype), images)


def draw_boxes(
  keys: Key[Array, " B"],
  size: Sequence[int],
  probability: float | int,
  area: Sequence[float | int],
  ratio: Sequence[float | int],
) -> Int[Array, "B 4"]:
  """(top, left, height, width) in pixels; zeros where nothing is erased.

  A share of the area is drawn uniformly and a ratio on a log scale, up to ten
  times; the first box smaller than the image on both sides is placed anywhere.
  """
  numbers = augment.draw(keys, 2 * _TRIES + 3)
  full = jnp.array(size)[None]
  low, high = area
  areas = (low + (high - low) * numbers[:, :_TRIES]) * size[0] * size[1]
  low, high = np.log(ratio)
  ratios = jnp.exp(low + (high - low) * numbers[:, _TRIES : 2 * _TRIES])
  shapes = jnp.stack(
    [jnp.round(jnp.sqrt(areas * ratios)), jnp.round(jnp.sqrt(areas / ratios))],
    axis=-1,
  )  # [B, tries, 2]
  fits = (shapes < full[:, None]).all(axis=-1)
  first = jnp.argmax(fits, axis=1)[:, None, None]
  shape = jnp.take_along_axis(shapes, first, axis=1)[:, 0]
  corners = jnp.floor(numbers[:, -3:-1] * (full - shape + 1))
  wanted = fits.any(axis=1) & (numbers[:, -1] < probability)
  boxes = jnp.concatenate([corners, shape], axis=1)
  return jnp.where(wanted[:, None], boxes, 0).astype(jnp.int32)


def in_boxes(
  boxes: Int[Array, "B 4"], size: Sequence[int]
) -> Bool[Array, "B H W"]:
  """Whether a pixel lies in the (top, left, height, width) box of its image."""
  rows, columns = (
    (place >= boxes[:, axis, None])
    & (place < (boxes[:, axis] + boxes[:, 2 + axis])[:, None])
    for axis, place in enumerate(jnp.arange(length)[None] for length in size)
  )
  return rows[:, :, None] & columns[:, None, :]
