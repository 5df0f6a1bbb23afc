"""Any folder of images as a data set."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from relvit_jax.data.builders import folders
from relvit_jax.data.builders.folders import FolderError, ImageBuilder, Listing

VALIDATION_FOLDERS = ("val", "valid", "validation")


class ImageFolder(ImageBuilder, skip_registration=True):
  """Images in folders: train/<class>/*, val/<class>/* and test/<class>/*.

  A class folder may hold folders of its own. Images without labels lie
  directly in train/, or in the folder itself where there is no train/; their
  label is -1. Where there is no val/ (or valid/, validation/), about every
  tenth image of train/ is held out as the split "validation", chosen by a
  hash of its path.

  The prepared copy is named after the folder and after the paths, sizes and
  times of its images: a changed folder is prepared anew. The folder is listed
  each time for it, and must be there.

  Args:
    folder: the folder.
    max_skipped, data_dir: as for `ImageBuilder`.

  Raises:
    FolderError: the folder has another form; the message says which is right.
  """

  name = "image_folder"

  def __init__(
    self,
    *,
    folder: str | os.PathLike[str],
    max_skipped: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
  ):
    self.folder = pathlib.Path(folder).expanduser().resolve()
    self._listing = folders.list_images(self.folder)
    self._parts = _parts(self.folder, self._listing)
    self._classes = _classes(self.folder, self._listing)
    self._splits = self._assign()
    super().__init__(
      data_dir=data_dir,
      config=f"{self.folder.name}-{self._listing.stamp}",
      max_skipped=max_skipped,
    )

  def _known_names(self) -> Sequence[str]:
    return self._classes

  def _items(self, dl_manager: Any) -> dict[str, list[folders.Item]]:
    self.notes["ignored"] = self._listing.ignored
    self.notes["elsewhere"] = self._elsewhere
    return {
      part: folders.files(self.folder, labelled)
      for part, labelled in self._splits.items()
    }

  def _assign(self) -> dict[str, list[tuple[str, str | int]]]:
    """(path, label) of every image of every split."""
    splits = {
      split: [(name, self._label(part, name)) for name in self._images(part)]
      for split, part in self._parts.items()
    }
    for split, found in splits.items():
      if not found:
        raise FolderError(f"no images in {self.folder / self._parts[split]}")
    used = {name for found in splits.values() for name, _ in found}
    elsewhere = [name for name in self._listing.images if name not in used]
    if elsewhere and not self._parts["train"]:
      raise FolderError(
        f"{self.folder} mixes images and folders of images, "
        f"{elsewhere[0]} for one: put those to train on into train/"
      )
    self._elsewhere = len(elsewhere)
    if "validation" not in splits:
      held = _held_out([name for name, _ in splits["train"]], self.folder)
      splits["validation"] = [x for x in splits["train"] if x[0] in held]
      splits["train"] = [x for x in splits["train"] if x[0] not in held]
    return splits

  def _images(self, part: str) -> tuple[str, ...]:
    if part:
      return self._listing.below(part)
    return tuple(name for name in self._listing.images if "/" not in name)

  def _label(self, part: str, name: str) -> str | int:
    inside = name.removeprefix(f"{part}/")
    label = inside.split("/", 1)[0] if "/" in inside else None
    if label is None and not self._classes:
      return -1
    if label is None:
      raise FolderError(
        f"{self.folder / name} lies outside the class folders of {part}/; "
        f"train/ has the classes {_some(self._classes)}"
      )
    if label not in self._classes:
      raise FolderError(
        f"unknown label {label!r} of {self.folder / name}: train/ has "
        f"{'the classes ' + _some(self._classes) if self._classes else 'none'}"
      )
    return label


def _parts(root: pathlib.Path, listing: Listing) -> dict[str, str]:
  """The folder of each split; "" is the folder itself."""
  there = [name for name in listing.folders if "/" not in name]
  parts = {"train": "train" if "train" in there else ""}
  if not parts["train"] and not any("/" not in n for n in listing.images):
    raise FolderError(
      f"no images in {root}: they belong in train/<class>/, or, without "
      f"labels, in train/ or directly in it; it has "
      f"{len(listing.images)} images elsewhere"
    )
  validation = [name for name in VALIDATION_FOLDERS if name in there]
  if len(validation) > 1:
    raise FolderError(
      f"{root} has {' and '.join(validation)}: which is for validation?"
    )
  if validation:
    parts["validation"] = validation[0]
  if "test" in there:
    parts["test"] = "test"
  return parts


def _classes(root: pathlib.Path, listing: Listing) -> tuple[str, ...]:
  """The class folders of train/, none where its images have no labels."""
  images = listing.below("train")
  loose = [name for name in images if name.count("/") == 1]
  if loose and len(loose) < len(images):
    raise FolderError(
      f"{root / 'train'} mixes class folders and images without: "
      f"{len(loose)} images, {loose[0]} first, are in none"
    )
  if loose or not images:
    return ()
  names = listing.classes("train")
  filled = {name.split("/")[1] for name in images}
  empty = [name for name in names if name not in filled]
  if empty:
    raise FolderError(
      f"no images in {len(empty)} class folders of {root / 'train'}: "
      f"{_some(empty)}"
    )
  return folders.check_names(names)


def _held_out(names: Sequence[str], root: pathlib.Path) -> set[str]:
  """About a tenth of the names, each by itself: at least one, never all."""
  if len(names) < 2:
    raise FolderError(
      f"{root} has one image to train on; without val/ it takes two or more, "
      "as some are held out"
    )

  def number(name: str) -> int:
    return int(hashlib.sha256(name.encode("utf-8", "replace")).hexdigest(), 16)

  chosen = {name for name in names if number(name) % 10 == 0}
  if not chosen or len(chosen) == len(names):
    return {min(names, key=number)}
  return chosen


def _some(names: Sequence[str]) -> str:
  more = len(names) - 5
  return ", ".join(names[:5]) + (f" and {more} more" if more > 0 else "")
