"""Where images come from: a name and split expressions → `Split`, `Records`.

TFDS is imported when a data set on disk is asked for, TensorFlow never.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from relvit_jax.data.builders import catalogue
from relvit_jax.data.images import ImageError
from relvit_jax.data.splits import Records, Split, blank

__all__ = [
  "PARTS",
  "Records",
  "Split",
  "blank",
  "digits",
  "load_splits",
]

PARTS = ("train", "validation", "test")

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
  # No other data set waits for it.
  from sklearn import datasets

  pixels, labels = datasets.load_digits(return_X_y=True)
  scans = np.rint(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
  scans = np.repeat(scans, 3, axis=-1)
  order = np.random.default_rng(0).permutation(len(scans))
  first_train = DIGITS_VALIDATION + DIGITS_TEST
  parts = {
    "train": order[first_train:],
    "validation": order[DIGITS_TEST:first_train],
    "test": order[:DIGITS_TEST],
  }
  return {
    part: Split(
      name=f"digits/{part}",
      images=scans[chosen],
      labels=labels[chosen].astype(np.int32),
      class_names=tuple("0123456789"),
    )
    for part, chosen in parts.items()
  }


def load_splits(
  name: str,
  splits: Mapping[str, str],
  *,
  folder: str | os.PathLike[str] | None = None,
  classes: str | os.PathLike[str] | None = None,
  data_dir: str | os.PathLike[str] | None = None,
  stored_size: int | None = None,
  max_skipped: int = 0,
) -> dict[str, Split | Records]:
  """The parts of a data set.

  A folder is prepared where it is not yet; all else is prepared by command, as
  it may take a download and an hour. A folder without test/ is tested on its
  validation images; the name says so.

  Args:
    name: one of `catalogue.ENTRIES`.
    splits: part (train, validation, test) → which of the data set's own splits
      it is, as TFDS writes them: "train[:90%]", "train+extra".
    folder: of the data set "folder".
    classes: the class list of "imagenet100".
    data_dir: where TFDS keeps prepared data sets; None for its own place.
    stored_size: side of the square that images are squashed to; None where all
      are of one size.
    max_skipped: how many images a prepared copy may lack as they were damaged.

  Raises:
    ValueError: a part, a split or a parameter is wrong, two parts share images
      without being the same, or a data set is not prepared; the message says
      how to mend it.
  """
  for part in splits:
    if part not in PARTS:
      raise ValueError(
        f"data.splits.{part} is no part; there are {', '.join(PARTS)}"
      )
  if name == "digits":
    catalogue.check(name, {"folder": folder, "classes": classes})
    return _in_memory(splits)
  made = catalogue.builder(
    name,
    folder=folder,
    classes=classes,
    data_dir=data_dir,
    max_skipped=max_skipped,
  )
  if not catalogue.is_prepared(made):
    if name != "folder":
      raise ValueError(
        f"data.name={name!r} is not prepared in {made.data_dir}: "
        f"`relvit data prepare {name}` does it, once"
      )
    catalogue.write(made)
  return _on_disk(
    name, catalogue.reader(made), dict(splits), stored_size, max_skipped
  )


def is_there(
  name: str,
  *,
  folder: str | os.PathLike[str] | None = None,
  classes: str | os.PathLike[str] | None = None,
  data_dir: str | os.PathLike[str] | None = None,
) -> bool:
  """Whether `load_splits` would find the data set, and not have to make it.

  Args:
    name: one of `catalogue.ENTRIES`; the others as of `load_splits`.

  Raises:
    ValueError: there is no such folder of images, or list of classes.
  """
  if name == "digits":
    return True
  given = {"folder": folder, "classes": classes}
  if any(given[key] is None for key in catalogue.ENTRIES[name].takes):
    return False
  made = catalogue.builder(
    name, folder=folder, classes=classes, data_dir=data_dir
  )
  return catalogue.is_prepared(made)


def _in_memory(splits: Mapping[str, str]) -> dict[str, Split | Records]:
  there = digits()
  for part, expression in splits.items():
    if expression not in there:
      raise ValueError(
        f"data.splits.{part}={expression!r} must be one of "
        f"{', '.join(there)}: the digits have no others"
      )
  return {part: there[expression] for part, expression in splits.items()}


def _on_disk(
  name: str,
  reader: Any,
  splits: dict[str, str],
  stored_size: int | None,
  max_skipped: int,
) -> dict[str, Split | Records]:
  skipped = (reader.info.metadata or {}).get("skipped", ())
  if len(skipped) > max_skipped:
    raise ImageError(
      f"{reader.data_dir} was prepared without {len(skipped)} damaged images, "
      f"more than data.max_skipped={max_skipped}: {'; '.join(skipped[:3])}"
    )
  title = {"folder": reader.info.config_name}.get(name, name)
  note = catalogue.archive_note(reader)
  remarks = dict.fromkeys(splits, f", {note}" if note else "")
  lacks_test = name == "folder" and "test" not in reader.info.splits
  if lacks_test and splits.get("test") == "test":
    splits["test"] = "validation"
    remarks["test"] += " (there is no test/)"
  files = {part: _files(reader, part, splits[part]) for part in splits}
  _check_apart(splits, files)
  return {
    part: Records(
      name=f"{title}/{expression}{remarks[part]}",
      source=_source(reader, expression),
      class_names=tuple(reader.info.features["label"].names),
      stored_size=stored_size,
    )
    for part, expression in splits.items()
  }


def _source(reader: Any, expression: str) -> Any:
  import tensorflow_datasets as tfds

  try:
    return reader.as_data_source(
      expression, decoders={"image": tfds.decode.SkipDecoding()}
    )
  except NotImplementedError as error:  # TFDS's, of formats without an index.
    raise ValueError(
      f"{reader.data_dir} was prepared as {reader.info.file_format.value}, "
      "which cannot be read at random: prepare it as array_record in another "
      "data.dir"
    ) from error


def _files(
  reader: Any, part: str, expression: str
) -> dict[str, list[tuple[int, int]]]:
  """Which records, from and to, of which files an expression stands for."""
  there = reader.info.splits
  try:
    instructions = there[expression].file_instructions
  # TFDS raises each of them, by what is wrong with the expression.
  except (ValueError, KeyError, NotImplementedError) as error:
    raise ValueError(
      f"data.splits.{part}={expression!r} is no split: there are "
      f"{', '.join(f'{key} ({there[key].num_examples:,})' for key in there)}, "
      'and slices such as "train[:90%]"'
    ) from error
  found: dict[str, list[tuple[int, int]]] = {}
  for use in instructions:
    span = (use.skip, use.skip + use.take)
    found.setdefault(str(use.filename), []).append(span)
  if not found:
    raise ValueError(f"data.splits.{part}={expression!r} holds no image")
  return found


def _check_apart(
  splits: Mapping[str, str],
  files: Mapping[str, Mapping[str, list[tuple[int, int]]]],
) -> None:
  """No image is in two parts, unless the two are the same on purpose."""
  parts = list(splits)
  for i, first in enumerate(parts):
    for second in parts[i + 1 :]:
      shared = sum(
        max(0, min(end, other_end) - max(start, other_start))
        for file, spans in files[first].items()
        for start, end in spans
        for other_start, other_end in files[second].get(file, ())
      )
      if shared and splits[first] != splits[second]:
        raise ValueError(
          f"data.splits.{first}={splits[first]!r} and data.splits.{second}="
          f"{splits[second]!r} share {shared:,} images; parts must be apart or "
          "the same"
        )
