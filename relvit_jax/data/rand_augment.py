"""RandAugment on the device: two random changes of each image.

Cubuk et al. (2020) with the fifteen operations and ranges of timm 0.9.16's
"rand-m9-mstd0.5-inc1", whose severity grows with the magnitude, and the
rounding of Pillow: results are whole numbers of 0..255. Warps are bilinear,
where timm draws between bilinear and bicubic.

An image has one operation at a time, and every image takes the same way,
without branches: a table look-up (`tones`), one affine warp and a blend with
another picture, of which those that its operation does not need do nothing.
Inside, pixels stand as three planes, int32 [B, 3, H, W].
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped, UInt8

from relvit_jax.data import augment, tones
from relvit_jax.data.tones import Change

# Where the operation is at its strongest, at magnitude 10.
_DEGREES = 30.0
_SHEAR = 0.3
_TRANSLATION = 0.45  # Of the side.


def rand_augment(
  keys: Key[Array, " B"],
  images: Shaped[Array, "B H W 3"],
  *,
  num_operations: int = 2,
  magnitude: float | int = 9,
  deviation: float | int = 0.5,
  probability: float | int = 0.5,
  fill: Sequence[float | int] = (0.5, 0.5, 0.5),
) -> UInt8[Array, "B H W 3"]:
  """Some of fifteen operations on each image.

  Args:
    keys: of each example.
    images: uint8, or floats in [0, 1], which are rounded to bytes.
    num_operations: one after the other, drawn with replacement.
    magnitude: mean of the magnitude, from 0 to 10.
    deviation: its standard deviation; what falls outside 0..10 is clipped.
    probability: that an operation that was drawn happens.
    fill: what comes in from outside, red, green and blue in [0, 1]. timm
      takes the mean of the data set.

  Returns:
    uint8, as the operations are defined on bytes.
  """
  planes = _bytes(images).transpose(0, 3, 1, 2)
  changes = draw_changes(
    keys, num_operations, magnitude, deviation, probability
  )

  def step(planes: Array, change: Change) -> tuple[Array, None]:
    return apply_change(planes, change, fill), None

  # A loop, not a chain: XLA would merge a change into every reader of it.
  in_order = jax.tree.map(lambda field: field.T, changes)
  planes, _ = jax.lax.scan(step, planes, in_order)
  return planes.transpose(0, 2, 3, 1).astype(jnp.uint8)


def draw_changes(
  keys: Key[Array, " B"],
  num_operations: int,
  magnitude: float | int,
  deviation: float | int,
  probability: float | int,
) -> Change:
  """Operations and their magnitudes, of each image L: fields of [B, L].

  What the numbers mean: `rand_augment`.
  """
  if num_operations < 1:
    raise ValueError(f"num_operations={num_operations} must be at least 1")
  if not 0 <= magnitude <= 10 or deviation < 0:
    raise ValueError(
      f"magnitude={magnitude} must be from 0 to 10, and deviation="
      f"{deviation} not negative"
    )
  augment.check_share("probability", probability)
  numbers = augment.draw(keys, num_operations, 4)  # [B, L, 4]
  count = len(tones.OPERATIONS)
  operation = jnp.floor(numbers[..., 0] * count).astype(jnp.int32)
  # A number just below 1 times the count may round up to it.
  operation = jnp.minimum(operation, count - 1)
  happens = numbers[..., 1] < probability
  sign = jnp.where(numbers[..., 2] < 0.5, -1.0, 1.0)
  # From the uniform number to the normal one; ±infinity is clipped.
  normal = jax.scipy.special.ndtri(numbers[..., 3])
  noise = deviation * normal if deviation else jnp.zeros_like(normal)
  return Change(
    jnp.where(happens, operation, tones.NOTHING),
    jnp.clip(magnitude + noise, 0, 10) / 10,
    sign,
  )


def apply_change(
  planes: Int[Array, "B 3 H W"],
  change: Change,
  fill: Sequence[float | int] = (0.5, 0.5, 0.5),
) -> Int[Array, "B 3 H W"]:
  """One operation, of its own, on each image.

  Args:
    planes: whole numbers 0..255.
    change: what happens, fields of [B].
    fill: as of `rand_augment`.
  """
  # Only one of the three does something, so that none waits for another.
  table = tones.tables(planes, change)
  shown = tones.look_up(_enhance(planes, change), table)
  matrices = affine_matrices(change, *planes.shape[2:])
  bytes_of_fill = [min(255, round(255 * share)) for share in fill]
  return warp(shown, matrices, np.array(bytes_of_fill, np.int32))


def affine_matrices(
  change: Change, height: int, width: int
) -> Float[Array, "B 2 3"]:
  """Where a pixel comes from: (x, y, 1) shown → (x, y) in the image.

  In pixels, from the upper left corner of the image; a pixel's centre lies
  half a pixel inside. The identity where the operation is no geometric one.
  """
  amount = change.sign * change.level

  def only(operation: str, value: Array) -> Array:
    return jnp.where(change.is_(operation), value, 0)

  # Pillow turns the picture counter-clockwise by positive angles.
  angle = -np.pi / 180 * _DEGREES * only("rotate", amount)
  cosine, sine = jnp.cos(angle), jnp.sin(angle)
  x, y = width / 2, height / 2  # What it turns around.
  moved_x = only("translate_x", _TRANSLATION * width * amount)
  moved_y = only("translate_y", _TRANSLATION * height * amount)
  columns = (
    (cosine, only("shear_y", _SHEAR * amount) - sine),
    (only("shear_x", _SHEAR * amount) + sine, cosine),
    (
      moved_x + x - cosine * x - sine * y,
      moved_y + y + sine * x - cosine * y,
    ),
  )
  return jnp.stack([jnp.stack(column, axis=-1) for column in columns], axis=-1)


def warp(
  planes: Int[Array, "B 3 H W"],
  matrices: Float[Array, "B 2 3"],
  fill: Int[np.ndarray, " 3"],
) -> Int[Array, "B 3 H W"]:
  """Pillow's affine transform with bilinear sampling.

  A pixel whose source lies outside the image is filled; otherwise neighbours
  outside are those at the border. Fractions are cut off.
  """
  batch, _, height, width = planes.shape
  # A pixel's three bytes travel as one number: a third of the gathers.
  place = np.array([1, 1 << 8, 1 << 16], np.int32).reshape(1, 3, 1, 1)
  packed = jnp.sum(planes * place, axis=1).reshape(batch, -1)
  y, x = jnp.mgrid[:height, :width].reshape(2, 1, -1) + 0.5
  source_x, source_y = (
    row[:, :1] * x + row[:, 1:2] * y + row[:, 2:]
    for row in (matrices[:, 0], matrices[:, 1])
  )  # [B, H · W]
  inside = (source_x >= 0) & (source_x < width)
  inside &= (source_y >= 0) & (source_y < height)
  left, right, share_x = _neighbours(source_x, width)
  upper, lower, share_y = _neighbours(source_y, height)

  def pixels(row: Array, column: Array) -> Float[Array, "B 3 P"]:
    taken = jnp.take_along_axis(
      packed, row * width + column, axis=1, mode="promise_in_bounds"
    )
    shifted = [(taken >> shift) & 255 for shift in (0, 8, 16)]
    return jnp.stack(shifted, axis=1).astype(jnp.float32)

  def between(first: Array, second: Array, share: Array) -> Array:
    return first + (second - first) * share[:, None]

  value = between(
    between(pixels(upper, left), pixels(upper, right), share_x),
    between(pixels(lower, left), pixels(lower, right), share_x),
    share_y,
  )
  # What float32 leaves short of a whole number counts as that.
  value = jnp.floor(value + 1e-3).astype(jnp.int32)
  value = jnp.where(inside[:, None], value, fill[None, :, None])
  return value.reshape(planes.shape)


def _neighbours(
  place: Float[Array, "B P"], length: int
) -> tuple[Int[Array, "B P"], Int[Array, "B P"], Float[Array, "B P"]]:
  """The pixels to both sides of a place, and how far on from the first."""
  place = place - 0.5
  first = jnp.floor(place)
  share = place - first
  index = first.astype(jnp.int32)
  return (
    jnp.clip(index, 0, length - 1),
    jnp.clip(index + 1, 0, length - 1),
    share,
  )


def _enhance(
  planes: Int[Array, "B 3 H W"], change: Change
) -> Int[Array, "B 3 H W"]:
  """Colour and sharpness: the image and its grey or its blurred version."""
  sharpness = change.is_("sharpness")
  base = jnp.where(
    sharpness[:, None, None, None],
    _blurred(planes),
    tones.grey(planes)[:, None],
  )
  factor = jnp.where(
    change.is_("colour") | sharpness, tones.enhancement(change), 1.0
  )[:, None, None, None]
  return tones.blend(base, planes, factor)


def _blurred(planes: Int[Array, "B 3 H W"]) -> Int[Array, "B 3 H W"]:
  """Pillow's SMOOTH: a pixel counts 5, its neighbours 1; borders stay."""
  rows = planes[:, :, :-2] + planes[:, :, 1:-1] + planes[:, :, 2:]
  around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
  inner = (2 * (around + 4 * planes[:, :, 1:-1, 1:-1]) + 13) // 26
  return planes.at[:, :, 1:-1, 1:-1].set(inner)


def _bytes(images: Shaped[Array, "B H W 3"]) -> Int[Array, "B H W 3"]:
  if images.dtype == jnp.uint8:
    return images.astype(jnp.int32)
  shares = augment.to_float(images)
  return jnp.clip(jnp.round(shares * 255), 0, 255).astype(jnp.int32)
