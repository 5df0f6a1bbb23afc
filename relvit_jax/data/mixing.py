"""Mixup and cutmix: an image and its label are shared with a partner.

Zhang et al. (2018) and Yun et al. (2019), with the arithmetic of timm 0.9.16.
What is drawn stands apart from what is done with it, so that whoever asks
other questions of an image than its label can see what became of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from relvit_jax.data import augment, erasing

# Steps of a table of quantiles: with straight lines between them it is right
# to 4e-6 for alpha = 0.8, and exact for 1.
_QUANTILES = 4096


class Mixing(NamedTuple):
  """What became of each image of a batch.

  Images 0 and 1 are partners, 2 and 3, and so on: a batch is in random order
  already, and neighbours lie on one device if each has an even number.

  Attributes:
    share: how much of its label stays, from 0 to 1; the partner has the rest.
      Without cutting, also how much of every pixel.
    cut: whether a box of the partner was pasted, rather than pixels blended.
    box: (top, left, height, width) of that box in pixels; zeros without one.
  """

  share: Float[Array, " B"]
  cut: Bool[Array, " B"]
  box: Int[Array, "B 4"]

  @property
  def partner(self) -> Int[Array, " B"]:
    """The place in the batch of the image that each is mixed with."""
    return jnp.arange(len(self.share)) ^ 1


def draw_mixing(
  keys: Key[Array, " B"],
  size: Sequence[int],
  *,
  mixup_alpha: float | int = 0.8,
  cutmix_alpha: float | int = 1.0,
  probability: float | int = 1.0,
  cutmix_share: float | int = 0.5,
) -> Mixing:
  """Draws how each image of a batch is mixed with its partner.

  Each image draws for itself, where timm by default draws once a batch.

  Args:
    keys: of each example, an even number.
    size: (height, width) of the images in pixels.
    mixup_alpha: what is blended has shares of Beta(alpha, alpha); 0: no mixup.
    cutmix_alpha: likewise of cutmix; 0: no cutmix.
    probability: that an image is changed at all.
    cutmix_share: how often it is cut, where both could happen.

  Raises:
    ValueError: an odd number of images, or a number out of its range.
  """
  if len(keys) % 2:
    raise ValueError(
      f"mixing {len(keys)} images in pairs needs an even number of them"
    )
  for name, alpha in (
    ("mixup_alpha", mixup_alpha),
    ("cutmix_alpha", cutmix_alpha),
  ):
    if alpha < 0:
      raise ValueError(f"{name}={alpha} must not be negative")
  if not mixup_alpha and not cutmix_alpha:
    raise ValueError("mixup_alpha=0 and cutmix_alpha=0 leave nothing to mix")
  augment.check_share("probability", probability)
  augment.check_share("cutmix_share", cutmix_share)
  if not (mixup_alpha and cutmix_alpha):
    cutmix_share = 1.0 if cutmix_alpha else 0.0
  numbers = augment.draw(keys, 5)
  cut = numbers[:, 0] < cutmix_share
  share = jnp.where(
    cut,
    _symmetric_beta(numbers[:, 4], cutmix_alpha),
    _symmetric_beta(numbers[:, 4], mixup_alpha),
  )
  changed = numbers[:, 1] < probability
  cut &= changed
  share = jnp.where(changed, share, 1.0)
  box = jnp.where(cut[:, None], _boxes(numbers[:, 2:4], share, size), 0)
  height, width = size
  left = 1 - box[:, 2] * box[:, 3] / (height * width)
  return Mixing(jnp.where(cut, left, share), cut, box)


def _symmetric_beta(
  numbers: Float[Array, " B"], alpha: float | int
) -> Float[Array, " B"]:
  """Uniform numbers → numbers of Beta(alpha, alpha).

  By its quantiles, read from a table: JAX draws beta numbers by trial and
  error, and all devices would wait for the unluckiest image.
  """
  if not alpha:
    return jnp.ones_like(numbers)
  # A run that mixes nothing does not wait for it.
  import scipy.special

  steps = np.linspace(0, 1, _QUANTILES + 1)
  table = scipy.special.betaincinv(alpha, alpha, steps).astype(np.float32)
  place = numbers * _QUANTILES
  # Of a number below 1, of which the product may round up.
  index = jnp.minimum(place.astype(jnp.int32), _QUANTILES - 1)
  low, high = jnp.asarray(table)[index], jnp.asarray(table)[index + 1]
  return low + (high - low) * (place - index)


def _boxes(
  numbers: Float[Array, "B 2"], share: Float[Array, " B"], size: Sequence[int]
) -> Int[Array, "B 4"]:
  """Boxes of an area of 1 - share around any pixel, cut off at the border."""
  full = jnp.array(size)[None]
  sides = jnp.floor(full * jnp.sqrt(1 - share)[:, None])
  centre = jnp.floor(numbers * full)
  low = jnp.clip(centre - sides // 2, 0, full)
  high = jnp.clip(centre + sides // 2, 0, full)
  return jnp.concatenate([low, high - low], axis=1).astype(jnp.int32)


def mix(
  images: Shaped[Array, "B H W C"], mixing: Mixing
) -> Float[Array, "B H W C"]:
  """The images as `mixing` says; uint8 becomes float32 [0, 1]."""
  images = augment.to_float(images)
  pasted = erasing.in_boxes(mixing.box, images.shape[1:3])
  own = jnp.where(
    mixing.cut[:, None, None], ~pasted, mixing.share[:, None, None]
  )[..., None]
  return own * images + (1 - own) * _swapped(images)


def soft_labels(
  labels: Int[Array, " B"],
  num_classes: int,
  mixing: Mixing | None = None,
) -> Float[Array, "B C"]:
  """What a classifier should say: probabilities of each class.

  Args:
    labels: of the images before mixing.
    num_classes: C.
    mixing: None where images stay as they are.

  Returns:
    Rows that sum to 1; of NaN, the partner's too, for a label that is no
    class.
  """
  target = jax.nn.one_hot(labels, num_classes)
  known = (labels >= 0) & (labels < num_classes)
  target = jnp.where(known[:, None], target, jnp.nan)
  if mixing is None:
    return target
  share = mixing.share[:, None]
  return share * target + (1 - share) * _swapped(target)


def _swapped(rows: Shaped[Array, "B ..."]) -> Shaped[Array, "B ..."]:
  """Each row of the partner; without a word between devices of even shares."""
  pairs = rows.reshape(-1, 2, *rows.shape[1:])
  return pairs[:, ::-1].reshape(rows.shape)
