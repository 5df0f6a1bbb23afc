"""One part of a data set: `Split` in memory, `Records` on disk, alike in use.

Both have a name, a length, one shape for all their images, and `take`, which
gives a batch by its indices.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int32, UInt8
from numpy.typing import ArrayLike

from relvit_jax.data import boxes, images
from relvit_jax.data.images import ImageError

# Pixels are decoded outside Python's lock: on two cores two threads load JPEGs
# of 500×400 pixels at 1,150 to 1,200 images a second where one loads 500 to
# 650, and of 64×64 at the same 6,500 to 10,600 (November 2026).
_THREADS = min(8, os.cpu_count() or 1)
_CHUNK = 256  # Images that one thread reads and decodes before it asks again.


@dataclasses.dataclass(frozen=True)
class Split:
  """Images and labels of one part of a data set.

  Attributes:
    name: data set and part, as printed.
    images: pixels from 0 to 255; grey ones repeated over the channels.
    labels: index into `class_names`, or -1 for none.
    sizes: (height, width) before the images were squashed to a square; None
      where they were not.
  """

  name: str
  images: UInt8[np.ndarray, "n H W 3"]
  labels: Int32[np.ndarray, " n"]
  class_names: tuple[str, ...]
  sizes: Int32[np.ndarray, "n 2"] | None = None

  def __len__(self) -> int:
    return len(self.images)

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, 3) of every image."""
    _, height, width, channels = self.images.shape
    return height, width, channels

  def take(self, indices: ArrayLike) -> dict[str, np.ndarray]:
    """{"image": uint8 [b,H,W,3], "label": int32 [b]} of the examples.

    And "size", int32 [b,2], where there are `sizes`.
    """
    chosen = np.asarray(indices)
    batch = {"image": self.images[chosen], "label": self.labels[chosen]}
    return batch if self.sizes is None else batch | {"size": self.sizes[chosen]}


@dataclasses.dataclass(frozen=True)
class Records:
  """Encoded images of one part of a data set, decoded when they are taken.

  May be sent to another process.

  Attributes:
    name: data set and part, as printed.
    source: {"image": bytes, "label": int} by index, such as a TFDS data source.
    stored_size: side of the square that images are squashed to; None where all
      are of one size.
    crops: what a feed shows of them, cropped as they are decoded; None where
      it hands out what `take` gives.
  """

  name: str
  source: Any
  class_names: tuple[str, ...]
  stored_size: int | None = None
  crops: boxes.Crops | None = None

  def __post_init__(self) -> None:
    if self.stored_size is not None and self.stored_size < 1:
      raise ValueError(
        f"data.stored_size={self.stored_size} must be at least 1, or None"
      )

  def __len__(self) -> int:
    return len(self.source)

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(H, W, 3) of every image: that of the first, or the square."""
    if self.stored_size is not None:
      return self.stored_size, self.stored_size, 3
    if "_shape" not in self.__dict__:
      first = images.decode(self.source[0]["image"], self._what(0))
      object.__setattr__(self, "_shape", first.shape)
    return self.__dict__["_shape"]

  def take(self, indices: ArrayLike) -> dict[str, np.ndarray]:
    """The batch that `Split.take` would give.

    Raises:
      ImageError: an image is damaged, or of another size than the first while
        there is no `stored_size`; with the number of the record.
      ValueError: a label is none of the classes.
    """
    chosen = [int(index) for index in np.asarray(indices).reshape(-1)]
    batch = _empty(len(chosen), self.image_shape)
    self._fill(batch, 0, chosen)
    if self.stored_size is None:
      del batch["size"]
    return batch

  def take_crops(
    self, indices: ArrayLike, numbers: Float[np.ndarray, "b K"] | None = None
  ) -> dict[str, np.ndarray]:
    """Views of the examples, cut out of the whole images.

    Args:
      indices: of the examples.
      numbers: uniform in [0, 1), that a random box of each is drawn from; None:
        the middle, for evaluation.

    Returns:
      {"image": uint8 [b,S,S,3], "label": int32 [b], "box": float32 [b,4]}; the
      box is (top, left, height, width) in pixels of the whole image.

    Raises:
      ImageError: an image is damaged; with the number of the record.
      ValueError: a label is none of the classes, or there are no `crops`.
    """
    if self.crops is None:
      raise ValueError(f"{self.name} was opened without crops")
    side = self.crops.evaluation_size if numbers is None else self.crops.size
    chosen = [int(index) for index in np.asarray(indices).reshape(-1)]
    batch = _empty(len(chosen), (side, side, 3))
    del batch["size"]
    batch["box"] = np.empty((len(chosen), 4), np.float32)
    for place, (index, record) in enumerate(self._records(chosen)):
      batch["image"][place], batch["box"][place] = images.view(
        record["image"],
        self._what(index),
        side,
        functools.partial(
          self.crops.box, numbers=None if numbers is None else numbers[place]
        ),
        bounded=numbers is not None,
      )
      batch["label"][place] = self._label(index, record["label"])
    return batch

  def load(self, progress: Callable[[int], Any] | None = None) -> Split:
    """All of it, decoded once into memory.

    Args:
      progress: called now and then with how many images came since.

    Raises:
      ImageError, ValueError: as `take`.
    """
    everything = _empty(len(self), self.image_shape)

    def fill(start: int) -> int:
      stop = min(start + _CHUNK, len(self))
      self._fill(everything, start, range(start, stop))
      return stop - start

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
      futures = [pool.submit(fill, i) for i in range(0, len(self), _CHUNK)]
      try:
        for future in futures:
          count = future.result()
          if progress is not None:
            progress(count)
      except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    return Split(
      name=self.name,
      images=everything["image"],
      labels=everything["label"],
      class_names=self.class_names,
      sizes=None if self.stored_size is None else everything["size"],
    )

  def _fill(
    self, batch: dict[str, np.ndarray], start: int, indices: Sequence[int]
  ) -> None:
    """Decodes the records to the places of the batch from `start` on."""
    for place, (index, record) in enumerate(self._records(indices), start):
      image, size = self._decode(index, record["image"])
      batch["image"][place] = image
      batch["size"][place] = size
      batch["label"][place] = self._label(index, record["label"])

  def _records(self, indices: Sequence[int]) -> Iterable[tuple[int, Any]]:
    several = getattr(self.source, "__getitems__", None)
    if several is not None:
      records = several(list(indices))
    else:
      records = [self.source[index] for index in indices]
    return zip(indices, records, strict=True)

  def _decode(
    self, index: int, data: bytes
  ) -> tuple[np.ndarray, tuple[int, ...]]:
    what = self._what(index)
    image = images.decode(data, what)
    size = image.shape[:2]
    if self.stored_size is not None:
      return images.squash(image, self.stored_size), size
    if image.shape != self.image_shape:
      height, width, _ = self.image_shape
      raise ImageError(
        f"{what} has {size[0]}×{size[1]} pixels, the first has "
        f"{height}×{width}: set data.stored_size to the side of a square that "
        "all are squashed to"
      )
    return image, size

  def _label(self, index: int, label: int) -> int:
    if not -1 <= label < len(self.class_names):
      raise ValueError(
        f"{self._what(index)} has the label {label}, but there are "
        f"{len(self.class_names)} classes"
      )
    return label

  def _what(self, index: int) -> str:
    return f"{self.name}, image {index}"


def _empty(count: int, shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
  return {
    "image": np.empty((count, *shape), np.uint8),
    "label": np.empty(count, np.int32),
    "size": np.empty((count, 2), np.int32),
  }


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
