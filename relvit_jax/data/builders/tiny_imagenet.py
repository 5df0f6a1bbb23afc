"""Tiny-ImageNet, from its zip as it is or from the unpacked folder."""

from __future__ import annotations

import collections
import functools
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

from tensorflow_datasets.core import utils
from tensorflow_datasets.core.download import checksums

from relvit_jax.data.builders import folders
from relvit_jax.data.builders.folders import FolderError, ImageBuilder, Item

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
ROOT = "tiny-imagenet-200"

# The largest image of the set has 20 kB, its largest list 3 MB.
_MAX_BYTES = 64 * 2**20

# What reads each file, by its path below ROOT.
Files = Mapping[str, Callable[[], bytes]]


class TinyImagenet(ImageBuilder):
  """Tiny-ImageNet: 200 classes of 64×64 pixels, 500 images each and 50 more.

  Splits: train 100,000 images, validation 10,000. The 10,000 test images have
  no labels and are left out. Classes are WordNet numbers in ascending order,
  as a folder of class folders would number them, not in that of wnids.txt.

  Read from tiny-imagenet-200/ or tiny-imagenet-200.zip in the manual directory
  or else downloaded (248 MB); a zip must have the known checksum, and is read
  where it lies, never unpacked.

  Args:
    data_dir, max_skipped: as for `ImageBuilder`.

  Source: Stanford CS231n, a selection of ImageNet.
  """

  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    f"Optional: put {ROOT}.zip from {URL}, or {ROOT}/ unpacked from it, here."
  )

  # Not published beside the file. Nine public repositories on GitHub that
  # record the SHA-256 of their download agree on it, the size with several.
  url_infos = {  # noqa: RUF012 - a property of the class in TFDS.
    URL: checksums.UrlInfo(
      size=utils.Size(248_100_043),
      checksum="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
      filename=f"{ROOT}.zip",
    )
  }

  def __init__(
    self,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    max_skipped: int = 0,
  ):
    super().__init__(data_dir=data_dir, max_skipped=max_skipped)

  def _items(self, dl_manager: Any) -> dict[str, list[Item]]:
    try:
      unpacked = pathlib.Path(dl_manager.manual_dir) / ROOT
    except AssertionError:  # There is none, or it is empty.
      unpacked = None
    if unpacked and unpacked.is_dir():
      return self._of(_folder_files(unpacked), str(unpacked))
    archive = pathlib.Path(dl_manager.download(URL))
    return self._of(_zip_files(archive), str(archive))

  def _of(self, found: Files, where: str) -> dict[str, list[Item]]:
    """The items of both splits, after both were found complete."""
    names = _classes(found, where)
    features: Any = self.info.features
    features["label"].names = list(names)
    return {
      "train": _train(found, names, where),
      "validation": _validation(found, names, where),
    }


def _folder_files(root: pathlib.Path) -> Files:
  listing = folders.list_images(root)
  lists = [
    name
    for name in ("wnids.txt", "val/val_annotations.txt")
    if (root / name).is_file()
  ]
  return {name: (root / name).read_bytes for name in (*listing.images, *lists)}


def _zip_files(archive: pathlib.Path) -> Files:
  """Readers of the members below ROOT; nothing is unpacked to disk."""
  try:
    opened = zipfile.ZipFile(archive)
  except zipfile.BadZipFile as error:
    raise FolderError(f"{archive} is no zip: {error}") from error
  found: dict[str, Callable[[], bytes]] = {}
  for member in opened.infolist():
    parts = pathlib.PurePosixPath(member.filename).parts
    if member.filename.startswith("/") or ".." in parts:
      raise FolderError(
        f"{archive} has a member {member.filename!r} outside its folder"
      )
    if member.file_size > _MAX_BYTES:
      raise FolderError(
        f"{archive}: {member.filename} would unpack to "
        f"{member.file_size:,} bytes; no file of the set has {_MAX_BYTES:,}"
      )
    if not member.is_dir() and parts[0] == ROOT:
      name = "/".join(parts[1:])
      found[name] = functools.partial(opened.read, member.filename)
  return found


def _classes(found: Files, where: str) -> tuple[str, ...]:
  if "wnids.txt" not in found:
    raise FolderError(f"no wnids.txt in {where}")
  listed = sorted(found["wnids.txt"]().decode().split())
  there = sorted({n.split("/")[1] for n in found if n.startswith("train/")})
  if listed != there:
    missing = sorted(set(listed) ^ set(there))
    raise FolderError(
      f"wnids.txt and train/ of {where} disagree on {len(missing)} classes: "
      f"{', '.join(missing[:5])}"
    )
  return folders.check_names(listed)


def _train(found: Files, names: tuple[str, ...], where: str) -> list[Item]:
  items = [
    Item(name, read, name.split("/")[1])
    for name, read in sorted(found.items())
    if name.startswith("train/") and _is_image(name)
  ]
  _check_balance(items, names, f"train/ of {where}")
  return items


def _validation(found: Files, names: tuple[str, ...], where: str) -> list[Item]:
  notes = "val/val_annotations.txt"
  if notes not in found:
    raise FolderError(f"no {notes} in {where}")
  labels = {}
  for line in found[notes]().decode().splitlines():
    image, label, *_ = line.split("\t")
    labels[f"val/images/{image}"] = label
  there = {n for n in found if n.startswith("val/images/") and _is_image(n)}
  alone = sorted(there ^ labels.keys())
  if alone:
    raise FolderError(
      f"{notes} and val/images/ of {where} disagree on {len(alone)} images: "
      f"{', '.join(alone[:3])}"
    )
  unknown = sorted(set(labels.values()) - set(names))
  if unknown:
    raise FolderError(f"{notes} of {where}: unknown labels {unknown[:5]}")
  items = [Item(name, found[name], labels[name]) for name in sorted(there)]
  _check_balance(items, names, f"val/ of {where}")
  return items


def _is_image(name: str) -> bool:
  return os.path.splitext(name)[1].lower() in folders.EXTENSIONS


def _check_balance(
  items: list[Item], names: tuple[str, ...], where: str
) -> None:
  """Every class has equally many images: a broken copy would not."""
  count = collections.Counter(item.label for item in items)
  usual = max(count.values(), default=0)
  short = {name: count[name] for name in names if count[name] != usual}
  if short or not usual:
    name, has = next(iter(short.items()), ("each", 0))
    raise FolderError(
      f"{where} is incomplete: {name} has {has} images, other classes {usual}"
    )
