"""Changes of an image's tones by Pillow's arithmetic, for all images at once.

What depends only on the value of a byte is a table of 256 entries for each
channel: eight operations of RandAugment then cost one look-up.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# In timm's order; those after `brightness` are no tables.
OPERATIONS = (
  "auto_contrast",
  "equalize",
  "invert",
  "rotate",
  "posterize",
  "solarize",
  "solarize_add",
  "colour",
  "contrast",
  "brightness",
  "sharpness",
  "shear_x",
  "shear_y",
  "translate_x",
  "translate_y",
)

# The operation of an image to which none happens.
NOTHING = len(OPERATIONS)


class Change(NamedTuple):
  """One operation on each image.

  Attributes:
    operation: its place in OPERATIONS, or NOTHING.
    level: how strong it is, from 0 to 1: a tenth of the magnitude.
    sign: 1 or -1, the direction of those operations that have two.
  """

  operation: Int[Array, "B ..."]
  level: Float[Array, "B ..."]
  sign: Float[Array, "B ..."]

  def is_(self, operation: str) -> Bool[Array, " B"]:
    """Whether this is the operation of an image."""
    return self.operation == OPERATIONS.index(operation)


def enhancement(change: Change) -> Float[Array, " B"]:
  """Factor of colour, contrast, brightness and sharpness; 1 changes nothing.

  At least 0.1.
  """
  return jnp.maximum(0.1, 1 + change.sign * 0.9 * change.level)


def tables(
  planes: Int[Array, "B 3 H W"], change: Change
) -> Int[Array, "B 3 256"]:
  """What each byte of an image becomes.

  The identity where the operation of an image is no table.
  """
  values = jnp.arange(256)[None, None]
  level = change.level[:, None, None]
  factor = enhancement(change)[:, None, None]
  counts = histograms(planes)
  mean = jnp.mean(grey(planes).astype(jnp.float32), axis=(1, 2))
  mean = jnp.floor(mean + 0.5)[:, None, None]
  # timm's deepest cut leaves no bit, a black image, at magnitude 10 alone;
  # Pillow by now refuses it.
  bits_lost = jnp.minimum(4 + jnp.floor(level * 4), 7).astype(jnp.int32)
  threshold = 256 - jnp.floor(level * 256).astype(jnp.int32)
  added = values + jnp.floor(level * 110).astype(jnp.int32)
  made = {
    "auto_contrast": _stretched(counts),
    "equalize": _equalized(counts),
    "invert": 255 - values,
    "posterize": (values >> bits_lost) << bits_lost,
    "solarize": jnp.where(values < threshold, values, 255 - values),
    "solarize_add": jnp.where(values < 128, jnp.minimum(added, 255), values),
    "contrast": blend(mean, values, factor),
    "brightness": blend(0, values, factor),
  }
  chosen = jnp.stack([change.is_(name) for name in made], axis=1)
  stacked = jnp.stack(
    [jnp.broadcast_to(table - values, counts.shape) for table in made.values()],
    axis=1,
  )
  # A product with one 1 and zeros: exact. As a choice, XLA would make a table
  # anew for every pixel that looks into it.
  moved = jnp.einsum(
    "bk,bkcv->bcv",
    chosen.astype(jnp.float32),
    stacked.astype(jnp.float32),
    precision=jax.lax.Precision.HIGHEST,
  )
  return values + moved.astype(jnp.int32)


def look_up(
  planes: Int[Array, "B 3 H W"], table: Int[Array, "B 3 256"]
) -> Int[Array, "B 3 H W"]:
  """Each byte by what the table of its image and channel says."""
  found = jnp.take_along_axis(
    table,
    planes.reshape(*planes.shape[:2], -1),
    axis=2,
    mode="promise_in_bounds",
  )
  return found.reshape(planes.shape)


def histograms(planes: Int[Array, "B 3 H W"]) -> Int[Array, "B 3 256"]:
  """How often each byte occurs in a channel of an image."""
  channel = np.arange(3, dtype=np.int32).reshape(1, 3, 1, 1) * 256
  bins = (planes + channel).reshape(len(planes), -1)

  def count(bins: Int[Array, " P"]) -> Int[Array, " 768"]:
    return jnp.zeros(3 * 256, jnp.int32).at[bins].add(1)

  return jax.vmap(count)(bins).reshape(-1, 3, 256)


def grey(planes: Int[Array, "B 3 H W"]) -> Int[Array, "B H W"]:
  """Pillow's conversion to L: 0.299, 0.587 and 0.114, in 16 bits."""
  red, green, blue = (planes[:, i] for i in range(3))
  return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def blend(
  base: Array | int, image: Array, factor: Float[Array, ...]
) -> Int[Array, ...]:
  """base + factor · (image - base), cut off to 0..255 as Pillow does."""
  mixed = base + factor * (image - base)
  return jnp.clip(mixed, 0, 255).astype(jnp.int32)


def _stretched(counts: Int[Array, "B 3 256"]) -> Int[Array, "B 3 256"]:
  """From the smallest byte that occurs to the largest: 0 to 255."""
  present = counts > 0
  low = jnp.argmax(present, axis=2, keepdims=True)
  high = 255 - jnp.argmax(present[..., ::-1], axis=2, keepdims=True)
  values = jnp.arange(256)[None, None]
  stretched = (values - low) * 255 // jnp.maximum(high - low, 1)
  return jnp.where(high > low, jnp.clip(stretched, 0, 255), values)


def _equalized(counts: Int[Array, "B 3 256"]) -> Int[Array, "B 3 256"]:
  """Bytes in their order, about equally often each.

  A byte becomes the number of pixels below it in units of a 255th of all but
  those of the largest byte; without as many pixels nothing changes.
  """
  below = jnp.cumsum(counts, axis=2) - counts
  largest = 255 - jnp.argmax(counts[..., ::-1] > 0, axis=2, keepdims=True)
  step = jnp.take_along_axis(below, largest, axis=2) // 255
  values = jnp.arange(256)[None, None]
  equal = (step // 2 + below) // jnp.maximum(step, 1)
  return jnp.where(step > 0, jnp.minimum(equal, 255), values)
