"""What happens to the images of a batch on the device.

Pure functions of (keys, images) with a key for each example, so that what
happens to an image depends neither on its neighbours nor on how devices share
the batch. `flip` and `pad_crop` keep the type of the pixels; everything else
turns uint8 0..255 into float32 [0, 1] and keeps the range of floats.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Key, Shaped

from relvit_jax import resize
from relvit_jax.data import boxes as formulas


def subkeys(keys: Key[Array, " B"], count: int) -> Key[Array, "{count} B"]:
  """`count` independent keys of each example: one for each function."""
  return jax.vmap(lambda key: jax.random.split(key, count), out_axes=1)(keys)


def draw(keys: Key[Array, " B"], *shape: int) -> Float[Array, "B ..."]:
  """Numbers of each example, uniform in [0, 1).

  One call draws all that a function needs: many small ones cost more.
  """
  return jax.vmap(lambda key: jax.random.uniform(key, shape))(keys)


def to_float(images: Shaped[Array, "B H W C"]) -> Float[Array, "B H W C"]:
  """Pixels 0..255 → float32 [0, 1]; floats keep their range."""
  if images.dtype == jnp.uint8:
    return images.astype(jnp.float32) / 255
  if jnp.issubdtype(images.dtype, jnp.floating):
    return images.astype(jnp.float32)
  raise TypeError(
    f"images of type {images.dtype} are neither uint8 0..255 nor floats"
  )


def normalise(
  images: Shaped[Array, "B H W C"],
  mean: Float[np.ndarray, " C"],
  std: Float[np.ndarray, " C"],
) -> Float[Array, "B H W C"]:
  """Pixels, uint8 or in [0, 1] → (pixel - mean) / std; both in [0, 1]."""
  unit = 255 if images.dtype == jnp.uint8 else 1
  scale = (1 / (unit * std)).reshape(1, 1, 1, -1)
  shift = (-mean / std).reshape(1, 1, 1, -1)
  return images.astype(jnp.float32) * scale + shift


def flip(
  keys: Key[Array, " B"],
  images: Shaped[Array, "B H W C"],
  probability: float | int = 0.5,
) -> Shaped[Array, "B H W C"]:
  """Mirrors left and right of some images."""
  check_share("probability", probability)
  chosen = draw(keys)[:, None, None, None] < probability
  return jnp.where(chosen, images[:, :, ::-1], images)


def pad_crop(
  keys: Key[Array, " B"], images: Shaped[Array, "B H W C"], padding: int
) -> Shaped[Array, "B H W C"]:
  """Shifts each image by up to `padding` pixels; what comes in is black.

  Each axis on its own, all shifts equally likely.
  """
  if padding < 0:
    raise ValueError(f"data.crop_padding={padding} must not be negative")
  if padding == 0:
    return images
  shifts = jnp.floor(draw(keys, 2) * (2 * padding + 1)) - padding
  rows, columns = (
    _shift_weights(shifts[:, axis], images.shape[1 + axis]) for axis in (0, 1)
  )
  # Sums of one pixel and zeros: exact for uint8 too.
  shifted = resize.weighted_sums(images.astype(jnp.float32), rows, columns)
  return shifted.astype(images.dtype)


def _shift_weights(
  shifts: Float[Array, " B"], length: int
) -> Float[Array, "B {length} {length}"]:
  """1 where pixel `j` comes to stand at `i`; nothing comes from outside."""
  pixel = jnp.arange(length)
  source = pixel[None, :, None] + shifts[:, None, None]
  return (source == pixel[None, None, :]).astype(jnp.float32)


def resized_crop(
  keys: Key[Array, " B"],
  images: Shaped[Array, "B H W C"],
  size: int,
  *,
  scale: Sequence[float | int] = (0.08, 1.0),
  ratio: Sequence[float | int] = (3 / 4, 4 / 3),
  sizes: Integer[Array, "B 2"] | None = None,
) -> Float[Array, "B {size} {size} C"]:
  """A random box of each image, resized to size×size pixels.

  torchvision's RandomResizedCrop, but without its rounding to 8 bits.

  Args:
    keys: of each example.
    images: of any height and width.
    size: pixels a side.
    scale: smallest and largest share of the area that a box is drawn to have.
    ratio: smallest and largest width / height of a box, in original pixels.
    sizes: (height, width) that each picture had before it was squashed into
      the array, in pixels; None: as in the array.

  Returns:
    float32, bilinear with antialiasing.
  """
  for name, (low, high) in (("scale", scale), ("ratio", ratio)):
    if not 0 < low <= high:
      raise ValueError(f"{name}={(low, high)} must be above 0 and ascend")
  sizes = _original_sizes(images, sizes)
  boxes = draw_boxes(keys, sizes, scale, ratio)
  return resize_boxes(images, boxes, size, sizes=sizes)


def draw_boxes(
  keys: Key[Array, " B"],
  sizes: Integer[Array, "B 2"],
  scale: Sequence[float | int],
  ratio: Sequence[float | int],
) -> Int[Array, "B 4"]:
  """The boxes of `resized_crop`, as `boxes.draw_boxes` has them."""
  numbers = draw(keys, formulas.NUMBERS)
  return formulas.draw_boxes(numbers, sizes, scale, ratio)


def centre_view(
  images: Shaped[Array, "B H W C"],
  size: int,
  share: float | int | None,
  sizes: Integer[Array, "B 2"] | None = None,
) -> Float[Array, "B {size} {size} C"]:
  """The middle of each image, resized to size×size pixels, for evaluation.

  Args:
    images: of any height and width.
    size: pixels a side.
    share: side of the square that is shown, of the shorter side of the
      original picture; 224/256 is Resize(256) and CenterCrop(224). None: the
      whole picture, squashed.
    sizes: (height, width) that each picture had before it was squashed into
      the array, in pixels; None: as in the array.

  Returns:
    float32, bilinear with antialiasing; untouched where nothing changes.
  """
  if share is None:
    if images.shape[1:3] == (size, size):
      return to_float(images)
    sizes = None
  sizes = _original_sizes(images, sizes)
  boxes = formulas.centre_boxes(sizes, share)
  return resize_boxes(images, boxes, size, sizes=sizes, bounded=False)


def resize_boxes(
  images: Shaped[Array, "B H W C"],
  boxes: Shaped[Array, "B 4"],
  size: int,
  *,
  sizes: Integer[Array, "B 2"] | None = None,
  bounded: bool = True,
) -> Float[Array, "B {size} {size} C"]:
  """A box of each image, resized to size×size pixels, bilinear, antialiased.

  Args:
    images: of any height and width.
    boxes: (top, left, height, width) in pixels of the original pictures.
    size: pixels a side.
    sizes: (height, width) of the originals, None: as in the array.
    bounded: whether only pixels that the box touches count.
  """
  if size < 1:
    raise ValueError(f"size={size} must be at least 1 pixel")
  sizes = _original_sizes(images, sizes)
  stored = jnp.array(images.shape[1:3])[None]
  boxes = boxes * jnp.tile(stored / sizes, (1, 2))
  rows, columns = (
    resize.axis_weights(
      boxes[:, axis],
      boxes[:, 2 + axis],
      size,
      images.shape[1 + axis],
      bounded=bounded,
    )
    for axis in (0, 1)
  )
  return resize.weighted_sums(to_float(images), rows, columns)


def check_share(name: str, value: float | int) -> None:
  """Raises unless the value lies between 0 and 1."""
  if not 0 <= value <= 1:
    raise ValueError(f"{name}={value} must be from 0 to 1")


def _original_sizes(
  images: Shaped[Array, "B H W C"], sizes: Integer[Array, "B 2"] | None
) -> Integer[Array, "B 2"]:
  batch, height, width, _ = images.shape
  if sizes is None:
    return jnp.broadcast_to(jnp.array([[height, width]]), (batch, 2))
  return sizes
