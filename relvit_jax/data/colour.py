"""Colours of patches: brightness, contrast, saturation and hue, and grey.

torchvision's ColorJitter for all patches at once, split into drawing and
applying. Pixels stand as [p, p, 3, B, N], as in `patch_augment`, so that what a
patch draws, [B, N], is equal for whole planes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from relvit_jax.data import augment

# The operations of `apply_jitter`; a factor's place in `Jitter.factors`.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

_ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)

# Red, green, blue; torchvision's, which sum to 0.9999.
_GREY = (0.2989, 0.587, 0.114)

# Three planes of a colour each, [p, p, B, N].
_Colours = tuple[Array, ...]


class Jitter(NamedTuple):
  """How `apply_jitter` changes the colours of each patch.

  Attributes:
    factors: of brightness, contrast and saturation (1 changes nothing), and
      the shift of the hue in turns.
    order: the operations in the order in which they happen, all four.
    active: which of the four happen at all.
  """

  factors: Float[Array, "B N 4"]
  order: Int[Array, "B N 4"]
  active: Bool[Array, "B N 4"]


def draw_jitter(
  keys: Key[Array, " B"],
  num_patches: int,
  *,
  strengths: Sequence[float | int],
  probability: float | int,
) -> Jitter:
  """Draws what torchvision's ColorJitter would, for each patch.

  Args:
    keys: of each example.
    num_patches: of an image.
    strengths: of brightness, contrast and saturation: a factor is uniform in
      [max(0, 1 - x), 1 + x]; of hue, at most 0.5: a shift is uniform in ±x
      turns. What has strength 0 does not happen.
    probability: that a patch is changed at all.
  """
  augment.check_share("probability", probability)
  names = ("brightness", "contrast", "saturation", "hue")
  for name, strength in zip(names, strengths, strict=True):
    if strength < 0 or (name == "hue" and strength > 0.5):
      limit = "from 0 to 0.5 turns" if name == "hue" else "at least 0"
      raise ValueError(f"{name}={strength} must be {limit}")
  numbers = augment.draw(keys, num_patches, 6)
  neutral = np.array([1, 1, 1, 0], np.float32)
  high = neutral + np.array(strengths, np.float32)
  low = 2 * neutral - high
  low[:HUE] = np.maximum(low[:HUE], 0)
  factors = numbers[:, :, :4] * (high - low)[None, None] + low[None, None]
  order = jnp.asarray(_ORDERS)[
    jnp.floor(numbers[:, :, 4] * len(_ORDERS)).astype(jnp.int32)
  ]
  chosen = numbers[:, :, 5:] < probability
  active = chosen & (np.array(strengths) > 0)[None, None]
  return Jitter(factors, order, active)


def apply_jitter(
  pixels: Float[Array, "p q 3 B N"], jitter: Jitter
) -> Float[Array, "p q 3 B N"]:
  """Brightness, contrast, saturation and hue of each patch in its own order.

  torchvision's operations: each clamps what it changes to [0, 1], also where
  pixels lay outside, except that a change of hue leaves the largest of the
  three colours as it is.
  """
  colours = _split(pixels)
  # The three blends share one formula, and the hue is the dear one: blends may
  # stand before and after it, and all but those that a patch wants do nothing.
  place = jnp.argmax(jitter.order == HUE, axis=-1)  # [B, N]
  for slot in range(3):
    colours = _blend(colours, jitter, slot, slot < place)
  active = jitter.active[..., HUE][None, None]
  turned = _turn_hue(colours, jitter.factors[..., HUE][None, None])
  colours = tuple(
    jnp.where(active, new, old)
    for new, old in zip(turned, colours, strict=True)
  )
  for slot in range(1, 4):
    colours = _blend(colours, jitter, slot, slot > place)
  return jnp.stack(colours, axis=2)


def grey(pixels: Float[Array, "p q 3 B N"]) -> Float[Array, "p q 1 B N"]:
  """How bright the eye finds each pixel."""
  return _grey(_split(pixels))[:, :, None]


def _split(pixels: Float[Array, "p q 3 B N"]) -> _Colours:
  return tuple(pixels[:, :, i] for i in range(3))


def _blend(
  colours: _Colours, jitter: Jitter, slot: int, wanted: Bool[Array, "B N"]
) -> _Colours:
  """The operation that is number `slot` of a patch, where it is wanted.

  All mix the pixel with something: nothing, the mean grey of the patch or the
  grey of the pixel.
  """
  step = jitter.order[..., slot]
  mine = step[..., None] == jnp.arange(4)[None, None]  # [B, N, 4]
  factor = jnp.sum(jnp.where(mine, jitter.factors, 0), axis=-1)[None, None]
  wanted = (wanted & jnp.any(mine & jitter.active, axis=-1))[None, None]
  grey = _grey(colours)
  mean = jnp.mean(grey, axis=(0, 1), keepdims=True)
  base = jnp.where((step == SATURATION)[None, None], grey, 0)
  base = jnp.where((step == CONTRAST)[None, None], mean, base)
  return tuple(
    jnp.where(
      wanted, jnp.clip(factor * colour + (1 - factor) * base, 0, 1), colour
    )
    for colour in colours
  )


def _turn_hue(colours: _Colours, shift: Float[Array, "1 1 B N"]) -> _Colours:
  """Turns the colour circle by `shift` turns; value and chroma stay."""
  red, green, blue = colours
  value = jnp.maximum(jnp.maximum(red, green), blue)
  chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
  unit = jnp.where(chroma == 0, 1, chroma)
  hue = jnp.where(
    value == red,
    (green - blue) / unit,
    jnp.where(
      value == green, 2 + (blue - red) / unit, 4 + (red - green) / unit
    ),
  )
  hue = hue / 6 + shift
  hue = 6 * (hue - jnp.floor(hue))  # Sixths of a turn from red.

  def channel(offset: int) -> Array:
    place = hue + offset
    place = jnp.where(place >= 6, place - 6, place)
    lost = jnp.clip(jnp.minimum(place, 4 - place), 0, 1) * chroma
    return jnp.where(place >= 4, value, jnp.clip(value - lost, 0, 1))

  return channel(5), channel(3), channel(1)


def _grey(colours: _Colours) -> Array:
  red, green, blue = (
    colour * weight for colour, weight in zip(colours, _GREY, strict=True)
  )
  return red + green + blue
