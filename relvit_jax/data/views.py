"""What the model is shown of a batch: while training and while evaluating."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from relvit_jax.data import (
  augment,
  boxes,
  erasing,
  feed,
  mixing,
  patch_augment,
  rand_augment,
)

# Whole ones among them, as a person types them.
Numbers = tuple[float | int, ...]


class Shown(NamedTuple):
  """A training batch as the model sees it.

  Attributes:
    images: normalised.
    places: the patch that image b shows at place i; None where all patches
      stay in place.
    mixed: which share of an image is its partner's; None where none is.
  """

  images: Float[Array, "B H W C"]
  places: Int[Array, "B N"] | None = None
  mixed: mixing.Mixing | None = None


@dataclasses.dataclass(frozen=True)
class Views:
  """From stored pixels to normalised images, as pure functions for a step.

  What is not explained here stands in the group `augment` of
  `configs/augment.py`, under the same name.

  Attributes:
    image_size: pixels a side of the image, before mega-patches.
    patch_size: pixels a side of a patch.
    mean: of red, green and blue, in [0, 1].
    std: standard deviation likewise.
  """

  image_size: int
  patch_size: int
  mean: Numbers
  std: Numbers
  crop: str = "none"
  crop_padding: int = 4
  crop_scale: Numbers = (0.08, 1.0)
  crop_ratio: Numbers = (3 / 4, 4 / 3)
  flip: float = 0.0
  eval_crop: float | None = None
  rand_augment: int = 0
  rand_magnitude: float | int = 9
  rand_deviation: float | int = 0.5
  erasing: float | int = 0.0
  mixup_alpha: float | int = 0.0
  cutmix_alpha: float | int = 0.0
  mix_probability: float | int = 1.0
  cutmix_share: float | int = 0.5
  mega_patches: int = 0
  mega_same_cuts: bool = False
  mega_antialias: bool = True
  mega_while_evaluating: bool = False
  patch_crop: float = 1.0
  patch_jitter: float = 0.0
  jitter_strength: Numbers = (0.4, 0.4, 0.4, 0.1)
  patch_grey: float = 0.0
  jitter_after_normalise: bool = False
  permute_patches: bool = False
  permute_targets_only: bool = False

  @property
  def model_size(self) -> int:
    """Pixels a side of what the model is shown."""
    return self.mega_patches * self.patch_size or self.image_size

  @property
  def evaluation_size(self) -> int:
    """Pixels a side that the middle of an image is resized to."""
    random_cuts = self.mega_patches and self.mega_while_evaluating
    return self.image_size if random_cuts else self.model_size

  @property
  def crops(self) -> boxes.Crops:
    """What a feed cuts out, if it crops images as it decodes them."""
    return boxes.Crops(
      self.image_size,
      self.crop_scale,
      self.crop_ratio,
      self.evaluation_size,
      self.eval_crop,
    )

  @jax.named_scope("augmentation")
  def training(self, keys: Key[Array, " B"], batch: feed.Batch) -> Shown:
    """Augmented images, and what the targets must know of them.

    Args:
      keys: of each example; all that happens to it, but for what is mixed in,
        follows from its own.
      batch: of a feed.
    """
    crop, flip, mega, patches, order, change, erase, mix = augment.subkeys(
      keys, 8
    )
    images = self._cropped(crop, batch)
    images = augment.flip(flip, images, self.flip) if self.flip else images
    if self.rand_augment:
      images = self._rand_augmented(change, images)
    if self.mega_patches:
      images = self._mega(mega, augment.to_float(images))
    if self.jitter_after_normalise:
      images = self._patches(patches, self.normalise(images))
    else:
      images = self.normalise(self._patches(patches, images))
    if self.erasing:
      images = erasing.random_erase(erase, images, self.erasing)
    images, mixed = self._mixed(mix, images)
    if not self.permute_patches:
      return Shown(images, None, mixed)
    permuted, places = patch_augment.permute_patches(
      order, images, self.patch_size
    )
    images = images if self.permute_targets_only else permuted
    return Shown(images, places, mixed)

  def evaluation(self, batch: feed.Batch) -> Float[Array, "B H W C"]:
    """The normalised images, nothing drawn by chance.

    The exception is the official code's: random mega-patches, here drawn
    alike in every evaluation.
    """
    images = batch["image"]
    if "box" not in batch:
      images = augment.centre_view(
        images, self.evaluation_size, self.eval_crop, batch.get("size")
      )
    if self.mega_patches and self.mega_while_evaluating:
      keys = jax.random.split(jax.random.key(0), len(images))
      images = self._mega(keys, augment.to_float(images))
    return self.normalise(images)

  def normalise(
    self, images: Array, inverse: bool = False
  ) -> Float[Array, "B H W C"]:
    """Pixels, 0..255 in uint8 or 0..1, → standardised; or back to 0..1."""
    mean = np.asarray(self.mean, np.float32)
    std = np.asarray(self.std, np.float32)
    if inverse:
      mean, std = (c.reshape(1, 1, 1, -1) for c in (mean, std))
      return jnp.clip(images * std + mean, 0, 1)
    return augment.normalise(images, mean, std)

  def _cropped(self, keys: Key[Array, " B"], batch: feed.Batch) -> Array:
    images, sizes = batch["image"], batch.get("size")
    if "box" in batch:
      return images
    if self.crop == "pad":
      return augment.pad_crop(keys, images, self.crop_padding)
    if self.crop == "resized":
      return augment.resized_crop(
        keys,
        images,
        self.image_size,
        scale=self.crop_scale,
        ratio=self.crop_ratio,
        sizes=sizes,
      )
    return augment.centre_view(images, self.image_size, None, sizes)

  def _rand_augmented(self, keys: Key[Array, " B"], images: Array) -> Array:
    return rand_augment.rand_augment(
      keys,
      images,
      num_operations=self.rand_augment,
      magnitude=self.rand_magnitude,
      deviation=self.rand_deviation,
      fill=self.mean,
    )

  def _mixed(
    self, keys: Key[Array, " B"], images: Array
  ) -> tuple[Array, mixing.Mixing | None]:
    if not self.mix_probability or not (self.mixup_alpha or self.cutmix_alpha):
      return images, None
    mixed = mixing.draw_mixing(
      keys,
      images.shape[1:3],
      mixup_alpha=self.mixup_alpha,
      cutmix_alpha=self.cutmix_alpha,
      probability=self.mix_probability,
      cutmix_share=self.cutmix_share,
    )
    return mixing.mix(images, mixed), mixed

  def _mega(self, keys: Key[Array, " B"], images: Array) -> Array:
    return patch_augment.mega_patches(
      keys,
      images,
      self.patch_size,
      self.mega_patches,
      same_cuts=self.mega_same_cuts,
      antialias=self.mega_antialias,
    )

  def _patches(self, keys: Key[Array, " B"], images: Array) -> Array:
    crop, jitter, grey = augment.subkeys(keys, 3)
    size = self.patch_size
    if self.patch_crop > 1:
      images = patch_augment.crop_patches(crop, images, size, self.patch_crop)
    if self.patch_jitter:
      brightness, contrast, saturation, hue = self.jitter_strength
      images = patch_augment.jitter_patches(
        jitter,
        images,
        size,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        probability=self.patch_jitter,
      )
    if self.patch_grey:
      images = patch_augment.grey_patches(grey, images, size, self.patch_grey)
    return images
