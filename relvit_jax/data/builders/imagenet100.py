"""A hundred classes of ImageNet, or any other choice of them."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from relvit_jax.data.builders import folders
from relvit_jax.data.builders.folders import FolderError, ImageBuilder

_TRAIN = re.compile(r"train(\.X\d+)?")
_VALIDATION = re.compile(r"val(\.X\d*)?")
_WNID = re.compile(r"n\d{8}")


class Imagenet100(ImageBuilder):
  """ImageNet, of its classes those in a list: splits train and validation.

  The manual directory holds ImageNet's folders train/<wnid>/* and
  val/<wnid>/*, or those of the copy on Kaggle, train.X1/<wnid>/* to train.X4
  and val.X/<wnid>/*. Folders of other classes are passed over.

  Args:
    classes: the list: a text file with a WordNet number at the start of each
      line, or a JSON object whose keys they are, as Kaggle's Labels.json.
      Classes are numbered in ascending order, whatever that of the list.
    data_dir, max_skipped: as for `ImageBuilder`.

  Raises:
    FolderError: the list is none, or, when prepared, a class is missing.
  """

  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "ImageNet is not to be had without registration. Put the folders "
    "train/<wnid>/ and val/<wnid>/ here, or train.X1/<wnid>/ … and "
    "val.X/<wnid>/ of ambityga/imagenet100 on Kaggle."
  )

  def __init__(
    self,
    *,
    classes: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    max_skipped: int = 0,
  ):
    self.classes = read_classes(pathlib.Path(classes).expanduser())
    super().__init__(
      data_dir=data_dir,
      config=f"{len(self.classes)}-classes-{folders.fingerprint(self.classes)}",
      max_skipped=max_skipped,
    )

  def _known_names(self) -> Sequence[str]:
    return self.classes

  def _items(self, dl_manager: Any) -> dict[str, list[folders.Item]]:
    root = pathlib.Path(dl_manager.manual_dir)
    return {
      "train": self._part(root, "train", _TRAIN),
      "validation": self._part(root, "val", _VALIDATION),
    }

  def _part(
    self, root: pathlib.Path, part: str, pattern: re.Pattern[str]
  ) -> list[folders.Item]:
    """The images of the classes in the one or more folders of a part."""
    there = sorted(
      path.name
      for path in root.iterdir()
      if path.is_dir() and pattern.fullmatch(path.name)
    )
    if part in there and len(there) > 1:
      raise FolderError(f"{root} has {' and '.join(there)}: which is it?")
    if not there:
      raise FolderError(f"{root} has no {part}/ and no {part}.X…/")
    # Only the chosen classes are listed: all of ImageNet has 1.3 million files.
    labelled: list[tuple[str, str]] = []
    missing = []
    for wnid in self.classes:
      found = [
        (f"{folder}/{wnid}/{name}", wnid)
        for folder in there
        if (root / folder / wnid).is_dir()
        for name in folders.list_images(root / folder / wnid).images
      ]
      labelled += found
      if not found:
        missing.append(wnid)
    if missing:
      raise FolderError(
        f"{len(missing)} of {len(self.classes)} classes have no images in "
        f"{', '.join(there)} of {root}: {', '.join(missing[:10])}"
        f"{' …' if len(missing) > 10 else ''}"
      )
    return folders.files(root, labelled)


def read_classes(path: pathlib.Path) -> tuple[str, ...]:
  """The WordNet numbers of a class list, ascending.

  Raises:
    FolderError: no such file, a line that begins with no WordNet number, or
      one that comes twice.
  """
  try:
    text = path.read_text(encoding="utf-8")
  except (OSError, UnicodeDecodeError) as error:
    raise FolderError(
      f"classes={str(path)!r} cannot be read: {error}"
    ) from error
  if path.suffix == ".json":
    try:
      # As pairs: a dict would swallow a class that comes twice.
      names = [key for key, _ in json.loads(text, object_pairs_hook=list)]
    except (ValueError, TypeError) as error:
      raise FolderError(
        f"{path} is no JSON object of WordNet numbers: {error}"
      ) from error
  else:
    names = [line.split()[0] for line in text.splitlines() if line.strip()]
  for number, name in enumerate(names, start=1):
    if not _WNID.fullmatch(name):
      raise FolderError(
        f"{path}: entry {number} is {name!r}, not a WordNet number such as "
        "n01440764"
      )
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise FolderError(f"{path} names {', '.join(twice[:5])} more than once")
  if not names:
    raise FolderError(f"{path} names no class")
  return tuple(sorted(names))
