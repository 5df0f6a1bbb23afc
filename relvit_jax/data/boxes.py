"""Which part of an image is shown: boxes, on the host as on a device.

The formulas stand here once, for NumPy in a worker process and for JAX inside
a compiled step: both draw from one distribution. The random numbers differ: a
worker's are a pure function of the run, the step and the place in the batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt32

# As often torchvision's RandomResizedCrop draws a box before it gives up.
_TRIES = 10
# Uniform numbers that a box is drawn from.
NUMBERS = 2 * _TRIES + 2

# NumPy in, NumPy out; JAX in, JAX out.
Arrays = TypeVar("Arrays")


@dataclasses.dataclass(frozen=True)
class Crops:
  """What is shown of images that are cropped as they are decoded.

  Attributes:
    size: pixels a side that a random box is resized to.
    scale: as `draw_boxes`.
    ratio: as `draw_boxes`.
    evaluation_size: pixels a side of the middle that is shown while evaluating.
    share: as `centre_boxes`.
  """

  size: int
  scale: tuple[float | int, ...]
  ratio: tuple[float | int, ...]
  evaluation_size: int
  share: float | int | None

  def box(
    self,
    size: tuple[int, int],
    numbers: Float[np.ndarray, f"{NUMBERS}"] | None = None,
  ) -> Float[np.ndarray, " 4"]:
    """(top, left, height, width) in an image of this (height, width).

    Args:
      size: in pixels.
      numbers: uniform in [0, 1), for a random box; None: the middle.
    """
    sizes = np.asarray([size], np.int32)
    if numbers is None:
      boxes = centre_boxes(sizes, self.share)
    else:
      boxes = draw_boxes(numbers[None], sizes, self.scale, self.ratio)
    return boxes[0].astype(np.float32)


def numbers_of_step(
  words: UInt32[np.ndarray, " 2"], step: int, batch_size: int
) -> Float[np.ndarray, f"batch_size {NUMBERS}"]:
  """What the boxes of a batch are drawn from: uniform in [0, 1).

  Row b depends on the words, the step and b alone, whoever asks for it.

  Args:
    words: 64 random bits of the run.
    step: counted from the start of the run.
  """
  # A counter's place in Philox is its own stream (Salmon et al., 2011), and
  # NumPy promises that its raw bits stay as they are.
  bits = np.random.Philox(
    key=int(words[0]) << 32 | int(words[1]), counter=[0, 0, 0, step]
  ).random_raw(batch_size * NUMBERS)
  shares = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
  return shares.reshape(batch_size, NUMBERS)


def draw_boxes(
  numbers: Float[Arrays, f"B {NUMBERS}"],
  sizes: Shaped[Arrays, "B 2"],
  scale: Sequence[float | int],
  ratio: Sequence[float | int],
) -> Int[Arrays, "B 4"]:
  """(top, left, height, width) of random boxes, in whole pixels.

  Ten times a share of the area is drawn uniformly and a ratio on a log scale;
  the first box that fits is placed anywhere. If none fits, it is the largest
  one in the middle whose ratio is allowed.

  Args:
    numbers: uniform in [0, 1).
    sizes: (height, width) of the images.
    scale: smallest and largest share of the area that a box is drawn to have.
    ratio: smallest and largest width / height of a box.
  """
  xp = _namespace(numbers)
  given: Any = numbers
  sides = xp.asarray(sizes).astype(xp.float32)
  full_height, full_width = sides[:, :1], sides[:, 1:]
  areas = _between(scale, given[:, :_TRIES]) * full_height * full_width
  ratios = xp.exp(_between(np.log(ratio), given[:, _TRIES:-2]))
  heights = xp.round(xp.sqrt(areas / ratios))
  widths = xp.round(xp.sqrt(areas * ratios))
  fits = (heights <= full_height) & (widths <= full_width)
  fits &= (heights >= 1) & (widths >= 1)
  # The fallback stands last and always fits.
  heights = xp.append(heights, xp.round(full_width / ratio[0]), axis=1)
  widths = xp.append(widths, xp.round(full_height * ratio[1]), axis=1)
  first = xp.where(fits.any(1), xp.argmax(fits, axis=1), _TRIES)[:, None]
  shape = xp.concatenate(
    [xp.take_along_axis(each, first, axis=1) for each in (heights, widths)],
    axis=1,
  )
  shape = xp.clip(shape, 1, sides)
  corners = xp.where(
    first == _TRIES,
    (sides - shape) // 2,
    xp.floor(given[:, -2:] * (sides - shape + 1)),
  )
  return xp.concatenate([corners, shape], axis=1).astype(xp.int32)


def centre_boxes(
  sizes: Shaped[Arrays, "B 2"], share: float | int | None
) -> Shaped[Arrays, "B 4"]:
  """(top, left, height, width) of the middle of images, in pixels.

  Args:
    sizes: (height, width) of the images.
    share: side of a square, of the shorter side; None: the whole image.
  """
  xp, given = _namespace(sizes), sizes
  if share is None:
    return xp.concatenate([xp.zeros_like(given), given], axis=1)
  if not 0 < share <= 1:
    raise ValueError(f"share={share} must be above 0 and at most 1")
  sides: Any = xp.asarray(given).astype(xp.float32)
  side = share * xp.min(sides, axis=1, keepdims=True)
  return xp.concatenate([(sides - side) / 2, side, side], axis=1)


def _between(ends: Sequence[float | int] | np.ndarray, shares: Any) -> Any:
  low, high = (float(end) for end in ends)
  return low + (high - low) * shares


def _namespace(array: Any) -> Any:
  """numpy or jax.numpy, without importing the second for the first."""
  return array.__array_namespace__()
