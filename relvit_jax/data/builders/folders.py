"""What all builders share: folders of images, and records made of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from relvit_jax.data.images import ImageError, Skips, stored

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"))


class FolderError(ValueError):
  """Folders that are no data set; the message names the folder."""


@dataclasses.dataclass(frozen=True)
class Listing:
  """The files below a folder.

  Attributes:
    images: paths of the images from the folder, with "/", sorted.
    folders: paths of the folders, likewise.
    ignored: how many files are no images by their extension, or hidden.
    stamp: changes when an image comes, goes, or is written anew.
  """

  images: tuple[str, ...]
  folders: tuple[str, ...]
  ignored: int
  stamp: str

  def classes(self, part: str) -> tuple[str, ...]:
    """The names of the folders directly in the folder `part`, sorted."""
    depth = part.count("/") + 1
    return tuple(
      folder.rsplit("/", 1)[1]
      for folder in self.folders
      if folder.startswith(f"{part}/") and folder.count("/") == depth
    )

  def below(self, part: str) -> tuple[str, ...]:
    """The images in the folder `part`, at any depth."""
    return tuple(name for name in self.images if name.startswith(f"{part}/"))


@dataclasses.dataclass(frozen=True)
class Item:
  """An image of a data set.

  Attributes:
    name: unique in its split; the order of the records follows from it.
    read: gives the bytes of the file.
    label: name of the class, or -1.
  """

  name: str
  read: Callable[[], bytes]
  label: str | int


def list_images(root: pathlib.Path) -> Listing:
  """Lists a folder; links are followed.

  Raises:
    FolderError: it is no folder, or a link leads to a folder it lies in.
  """
  if not root.is_dir():
    raise FolderError(f"{root} is not a folder")
  images: list[tuple[str, int, int]] = []
  folders: list[str] = []
  ignored = 0

  def walk(folder: pathlib.Path, name: str, above: tuple[str, ...]) -> None:
    nonlocal ignored
    real = os.path.realpath(folder)
    if real in above:
      raise FolderError(f"{folder} is a link to a folder that it lies in")
    with os.scandir(folder) as entries:
      for entry in entries:
        if entry.name.startswith("."):
          ignored += 1
        elif entry.is_dir():
          folders.append(name + entry.name)
          inside = folder / entry.name
          walk(inside, f"{name}{entry.name}/", (*above, real))
        elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
          facts = entry.stat()
          images.append((name + entry.name, facts.st_size, facts.st_mtime_ns))
        else:
          ignored += 1

  walk(root, "", ())
  images.sort()
  return Listing(
    images=tuple(name for name, _, _ in images),
    folders=tuple(sorted(folders)),
    ignored=ignored,
    stamp=fingerprint(images),
  )


def files(
  root: pathlib.Path, labelled: Iterable[tuple[str, Any]]
) -> list[Item]:
  """Items of the paths from `root`, each with its label."""
  return [
    Item(name, (root / name).read_bytes, label) for name, label in labelled
  ]


def fingerprint(what: Any) -> str:
  """Twelve hexadecimal digits that stand for anything JSON can write."""
  written = json.dumps(what).encode("utf-8", "surrogatepass")
  return hashlib.sha256(written).hexdigest()[:12]


def check_names(names: Sequence[str]) -> tuple[str, ...]:
  """Class names that TFDS reads back as they are, one a line of a file.

  Raises:
    FolderError: a name is empty, or begins, ends or breaks a line.
  """
  for name in names:
    if not name or name != name.strip() or len(name.splitlines()) != 1:
      raise FolderError(
        f"the class {name!r} must not be empty, break a line, begin or end "
        "with a space"
      )
  return tuple(names)


class _LocalInfo(tfds.core.DatasetInfo):
  """What TFDS would otherwise ask a bucket of Google's about, by name.

  No bucket knows these data sets, a name may be that of a private folder, and
  each time the question leaves an empty temporary folder behind.
  """

  def initialize_from_bucket(self) -> None:
    pass


class ImageBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A data set of encoded images and labels.

  A sub-class says what is in it: `_items`. Labels are -1 where there are none.

  Args:
    data_dir: where TFDS keeps prepared data sets; by default
      `TFDS_DATA_DIR` or ~/tensorflow_datasets.
    config: names what else the prepared copy depends on.
    max_skipped: how many images may be left out because they cannot be read.
  """

  VERSION = tfds.core.Version("1.0.0")

  def __init__(
    self,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    config: str | None = None,
    max_skipped: int = 0,
  ):
    self.skips = Skips(max_skipped)
    made = config and tfds.core.BuilderConfig(
      name=re.sub(r"[^\w.-]", "_", config), version=self.VERSION
    )
    super().__init__(
      data_dir=data_dir,
      config=made or None,
      file_format="array_record",
    )

  def __reduce__(self) -> Any:
    # Sent to another process it comes back as a reader of what was prepared:
    # the folders need not be there, nor be listed again.
    return tfds.builder_from_directory, (self.data_dir,)

  def _info(self) -> tfds.core.DatasetInfo:
    return _LocalInfo(
      builder=self,
      description=(type(self).__doc__ or "").strip(),
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(None, None, 3)),
          "label": tfds.features.ClassLabel(names=self._known_names()),
        }
      ),
      supervised_keys=("image", "label"),
      metadata=tfds.core.MetadataDict(),
    )

  @property
  def notes(self) -> dict[str, Any]:
    """What the prepared copy says of itself, such as its "skipped" images."""
    metadata: Any = self.info.metadata
    return metadata

  def _known_names(self) -> Sequence[str] | None:
    """The class names where they are known before the files are seen."""
    return None

  def _items(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, list[Item]]:
    """What is in each split; every sub-class says it."""
    # Says so to who writes a sub-class and forgets it.
    raise NotImplementedError(f"{type(self).__name__} must define _items")

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Any]:
    return {
      part: self._generate_examples(items)
      for part, items in self._items(dl_manager).items()
    }

  def _generate_examples(
    self, items: Sequence[Item]
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    left_out = 0
    for item in items:
      try:
        data = stored(item.read(), item.name)
      except ImageError as error:
        self.skips.add(error)
        self.notes["skipped"] = [str(e) for e in self.skips.errors]
        left_out += 1
      else:
        yield item.name, {"image": data, "label": item.label}
    if left_out == len(items):
      raise ImageError(
        f"no image of {left_out} is left: {self.skips.summary()}"
      )
