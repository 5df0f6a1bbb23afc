"""Data sets without their pixels: what planning and random pixels need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from relvit_jax.data import boxes
from relvit_jax.data.splits import Records, Split


class Published(NamedTuple):
  """What is known of a data set before it is there.

  Attributes:
    images: in each of its own splits.
    classes: how many.
  """

  images: dict[str, int]
  classes: int


# As those who made them say; imagenet100 as Kaggle's ambityga/imagenet100 has
# it, with 1,300 and 50 images of a class.
PUBLISHED: Mapping[str, Published] = {
  "cifar10": Published({"train": 50_000, "test": 10_000}, 10),
  "cifar100": Published({"train": 50_000, "test": 10_000}, 100),
  "svhn_cropped": Published(
    {"train": 73_257, "test": 26_032, "extra": 531_131}, 10
  ),
  "oxford_flowers102": Published(
    {"train": 1_020, "validation": 1_020, "test": 6_149}, 102
  ),
  "tiny_imagenet": Published({"train": 100_000, "validation": 10_000}, 200),
  "imagenet100": Published({"train": 130_000, "validation": 5_000}, 100),
}


@dataclasses.dataclass(frozen=True)
class Outline:
  """One part of a data set, by its sizes.

  Attributes:
    name: data set and part, as printed.
    count: how many images.
    class_names: of the labels.
    side: pixels of the squares that the images are, or are stored as.
    is_squashed: whether they had other shapes before.
  """

  name: str
  count: int
  class_names: tuple[str, ...]
  side: int
  is_squashed: bool

  def __len__(self) -> int:
    return self.count

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(height, width, 3)."""
    return self.side, self.side, 3

  def split(self) -> Split:
    """As it would lie in memory; all pixels are one zero, which takes none."""

    def zeros(dtype: Any, *lengths: int) -> np.ndarray:
      return np.broadcast_to(np.zeros((), dtype), (self.count, *lengths))

    return Split(
      self.name,
      zeros(np.uint8, *self.image_shape),
      zeros(np.int32),
      self.class_names,
      zeros(np.int32, 2) if self.is_squashed else None,
    )

  def records(self, crops: boxes.Crops | None) -> Records:
    """As it would be read from disk; nothing can be."""
    return Records(
      self.name, range(self.count), self.class_names, self.side, crops
    )


def published(
  name: str, splits: Mapping[str, str], side: int, is_squashed: bool
) -> dict[str, Outline]:
  """The parts of a data set, by what is known of it.

  Args:
    name: of a data set in `PUBLISHED`.
    splits: part → which of the data set's own splits it is, as TFDS writes
      them: "train[:90%]".
    side: as of `Outline`.
    is_squashed: as of `Outline`.

  Raises:
    ValueError: nothing is known of the data set, or it has no such split.
  """
  if name not in PUBLISHED:
    raise ValueError(
      f"data.name={name!r} is not prepared here, and only of "
      f"{', '.join(PUBLISHED)} it is known how many images there are: `relvit "
      f"data prepare {name}` counts them"
    )
  known = PUBLISHED[name]
  class_names = tuple(map(str, range(known.classes)))
  return {
    part: Outline(
      f"{name}/{expression}",
      _count(part, expression, known.images),
      class_names,
      side,
      is_squashed,
    )
    for part, expression in splits.items()
  }


def _count(part: str, expression: str, images: Mapping[str, int]) -> int:
  """How many images an expression of TFDS stands for."""
  import tensorflow_datasets as tfds

  infos = {
    name: tfds.core.SplitInfo(name=name, num_bytes=0, shard_lengths=[count])
    for name, count in images.items()
  }
  try:
    read = tfds.core.ReadInstruction.from_spec(expression).to_absolute(infos)
  except ValueError as error:
    raise ValueError(
      f"data.splits.{part}={expression!r} is no split: there are "
      f"{', '.join(f'{name} ({count:,})' for name, count in images.items())}, "
      'and slices such as "train[:90%]"'
    ) from error
  return sum(
    len(range(images[one.splitname])[one.from_ : one.to]) for one in read
  )
