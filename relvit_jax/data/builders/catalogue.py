"""Which data sets have a name, and what it takes to have them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

ARCHIVE_NOTE = "archive.txt"


class PreparationError(ValueError):
  """A data set cannot be prepared here; the message says what it takes."""


@dataclasses.dataclass(frozen=True)
class Entry:
  """A data set that has a name.

  Attributes:
    about: what it is, in a line.
    needs: what must be there before it can be prepared, in a line.
    stock: TFDS builds it, which takes TensorFlow.
    takes: the parameters of `builder` that it must have.
  """

  about: str
  needs: str
  stock: bool = False
  takes: tuple[str, ...] = ()


ENTRIES: Mapping[str, Entry] = {
  "digits": Entry(
    "1,797 scans of digits, 8×8, 10 classes", "nothing: part of scikit-learn"
  ),
  "cifar10": Entry(
    "60,000 photographs, 32×32, 10 classes",
    "170 MB download and TensorFlow, once",
    stock=True,
  ),
  "cifar100": Entry(
    "60,000 photographs, 32×32, 100 classes",
    "169 MB download and TensorFlow, once",
    stock=True,
  ),
  "svhn_cropped": Entry(
    "99,289 house numbers and 531,131 more, 32×32, 10 classes",
    "1.6 GB download and TensorFlow, once",
    stock=True,
  ),
  "oxford_flowers102": Entry(
    "8,189 flowers, many sizes, 102 classes",
    "345 MB download and TensorFlow, once",
    stock=True,
  ),
  "tiny_imagenet": Entry(
    "110,000 photographs, 64×64, 200 classes", "248 MB download"
  ),
  "imagenet100": Entry(
    "classes of ImageNet that a list chooses",
    "--manual_dir with train/ and val/, --classes with the list",
    takes=("classes",),
  ),
  "folder": Entry(
    "any folder of images", "--folder with train/<class>/*", takes=("folder",)
  ),
}


def check(name: str, given: Mapping[str, Any]) -> Entry:
  """The entry of a name, with all that it takes and nothing else.

  Args:
    given: parameters by their name; None for what was not given.

  Raises:
    ValueError: no such name; a parameter is missing, or means nothing here.
  """
  if name not in ENTRIES:
    raise ValueError(
      f"data.name={name!r} does not exist; there are {', '.join(ENTRIES)}"
    )
  entry = ENTRIES[name]
  for parameter in ("folder", "classes"):
    value = given.get(parameter)
    if parameter in entry.takes and value is None:
      raise ValueError(
        f"data.name={name!r} takes data.{parameter} (--{parameter}) as well"
      )
    if parameter not in entry.takes and value is not None:
      raise ValueError(
        f"data.{parameter}={str(value)!r} means nothing to data.name={name!r}"
      )
  return entry


def builder(
  name: str,
  *,
  folder: str | os.PathLike[str] | None = None,
  classes: str | os.PathLike[str] | None = None,
  data_dir: str | os.PathLike[str] | None = None,
  max_skipped: int = 0,
) -> Any:
  """The TFDS builder of a data set, prepared or not.

  Raises:
    ValueError: as `check`; for "folder", what is wrong with the folder.
  """
  entry = check(name, {"folder": folder, "classes": classes})
  if name == "digits":
    raise ValueError("data.name='digits' is never prepared: it is in memory")
  common: dict[str, Any] = {"data_dir": data_dir and os.fspath(data_dir)}
  if not entry.stock:
    common["max_skipped"] = max_skipped
  with quiet():
    if name == "folder":
      from relvit_jax.data.builders.image_folder import ImageFolder

      return ImageFolder(folder=str(folder), **common)
    if name == "imagenet100":
      from relvit_jax.data.builders.imagenet100 import Imagenet100

      return Imagenet100(classes=str(classes), **common)
    if name == "tiny_imagenet":
      from relvit_jax.data.builders.tiny_imagenet import TinyImagenet

      return TinyImagenet(**common)
    return _stock(name, common["data_dir"])


def _stock(name: str, data_dir: str | None) -> Any:
  """TFDS's own builder; of an older version where that one is prepared."""
  import tensorflow_datasets as tfds

  newest = tfds.builder(name, data_dir=data_dir)
  if is_prepared(newest):
    return newest
  return tfds.builder(name, data_dir=data_dir, version="*.*.*")


def is_prepared(made: Any) -> bool:
  return (pathlib.Path(made.data_dir) / "dataset_info.json").is_file()


def write(
  made: Any,
  *,
  manual_dir: str | os.PathLike[str] | None = None,
  extract_dir: str | os.PathLike[str] | None = None,
) -> None:
  """Prepares a data set as ArrayRecord where it is not yet.

  Two processes may do so at once: the first to finish is taken by both.

  Raises:
    PreparationError: the network, or files in the manual directory, are missing
      or other ones than they should be. TFDS tries for 204 s to connect.
    ValueError: a folder is no data set, or an image is damaged.
    OSError: a file cannot be read or written.
  """
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.download import download_manager

  if is_prepared(made):
    return
  if not sys.stderr.isatty():  # In a log file or a notebook bars are noise.
    tfds.disable_progress_bar()
  config = tfds.download.DownloadConfig(
    manual_dir=manual_dir and os.fspath(manual_dir),
    extract_dir=extract_dir and os.fspath(extract_dir),
    try_download_gcs=False,
  )
  try:
    with quiet():
      made.download_and_prepare(
        download_config=config, file_format="array_record"
      )
  except (OSError, tfds.download.DownloadError) as error:
    if is_prepared(made):
      return
    # Errors of files have a number, those of requests have none.
    if isinstance(error, OSError) and error.errno is not None:
      raise
    raise PreparationError(
      f"{made.name} cannot be downloaded ({error}): {_by_hand(made)}"
    ) from error
  except download_manager.NonMatchingChecksumError as error:
    raise PreparationError(f"{error}\n{_by_hand(made)}") from error
  except AssertionError as error:
    if "Manual directory" not in str(error):
      raise
    raise PreparationError(str(error)) from error


def _by_hand(made: Any) -> str:
  files = [
    f"{url} as {info.filename}" for url, info in (made.url_infos or {}).items()
  ]
  return f"fetch {', '.join(files)} and put it into --manual_dir"


def reader(made: Any) -> Any:
  """Reads what is prepared, from its files alone, in any process."""
  import tensorflow_datasets as tfds

  with quiet():
    return tfds.builder_from_directory(made.data_dir)


def prepared(
  name: str, data_dir: str | os.PathLike[str] | None = None
) -> list[pathlib.Path]:
  """Where copies of a data set are prepared, sorted."""
  from tensorflow_datasets.core import constants

  root = pathlib.Path(data_dir or constants.DATA_DIR).expanduser()
  root /= {"folder": "image_folder"}.get(name, name)
  copies = [*root.glob("*/dataset_info.json")]
  copies += root.glob("*/*/dataset_info.json")
  return sorted(
    path.parent for path in copies if "incomplete." not in path.parent.name
  )


def archive_note(made: Any) -> str | None:
  """What is to be said about the archive, where it was not the official one."""
  path = pathlib.Path(made.data_dir) / ARCHIVE_NOTE
  return path.read_text(encoding="utf-8").strip() if path.is_file() else None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Without TFDS's talk of sizes it does not know; errors are raised anyway."""
  absl = logging.getLogger("absl")
  level = absl.level
  absl.setLevel(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    absl.setLevel(level)
