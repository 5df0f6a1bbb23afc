"""Where images come from: every source ends as a `Split` of plain arrays."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int32, UInt8
from sklearn import datasets


@dataclasses.dataclass(frozen=True)
class Split:
  """Images and labels of one part of a data set.

  Attributes:
    name: data set and part, as printed.
    images: pixels from 0 to 255; grey ones repeated over the channels.
    labels: index into `class_names`.
  """

  name: str
  images: UInt8[np.ndarray, "n H W 3"]
  labels: Int32[np.ndarray, " n"]
  class_names: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.images)

  def statistics(
    self,
  ) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
    """Mean and standard deviation of a channel, in units of 255, float32."""
    pixels = self.images.reshape(-1, 3) / 255
    return (
      pixels.mean(axis=0).astype(np.float32),
      pixels.std(axis=0).astype(np.float32),
    )


# Of the 1,797 digits. Hyper-parameters are chosen on the validation images;
# the rest is for training.
DIGITS_VALIDATION = 200
DIGITS_TEST = 500


def digits() -> dict[str, Split]:
  """scikit-learn's digits: 1,797 real scans of 8×8 pixels, 10 classes.

  Split at random but always alike, as the scans come sorted by writer:
  1,097 train, 200 validation, 500 test. Grey levels 0..16 become 0..255.

  Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI.
  """
  pixels, labels = datasets.load_digits(return_X_y=True)
  images = np.rint(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
  images = np.repeat(images, 3, axis=-1)
  order = np.random.default_rng(0).permutation(len(images))
  first_train = DIGITS_VALIDATION + DIGITS_TEST
  parts = {
    "train": order[first_train:],
    "validation": order[DIGITS_TEST:first_train],
    "test": order[:DIGITS_TEST],
  }
  return {
    part: Split(
      name=f"digits/{part}",
      images=images[chosen],
      labels=labels[chosen].astype(np.int32),
      class_names=tuple("0123456789"),
    )
    for part, chosen in parts.items()
  }


SOURCES = {"digits": digits}


def load(name: str) -> dict[str, Split]:
  """The splits of a data set by their names: train, validation and test."""
  if name not in SOURCES:
    raise ValueError(
      f"data.name={name!r} does not exist; there are {', '.join(SOURCES)}"
    )
  return SOURCES[name]()


def blank(split: Split) -> Split:
  """The same split with nothing to see: every pixel of the mean grey.

  A model that still finds the positions of these patches has them from its
  positional embedding, not from the image.
  """
  grey = np.uint8(np.rint(split.images.mean()))
  return dataclasses.replace(
    split,
    name=f"{split.name}, blank",
    images=np.full_like(split.images, grey),
  )
