"""Puts a data set on disk, once, in the form that is read."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any
from unittest import mock

from relvit_jax.data.builders import catalogue
from relvit_jax.data.builders.catalogue import PreparationError

Path = str | os.PathLike[str]


def prepare(
  name: str,
  *,
  data_dir: Path | None = None,
  manual_dir: Path | None = None,
  folder: Path | None = None,
  classes: Path | None = None,
  archive: Path | None = None,
  archive_sha256: str | None = None,
  max_skipped: int = 0,
) -> str:
  """Prepares a data set where it is not yet, as ArrayRecord.

  Args:
    name: one of `catalogue.ENTRIES`.
    data_dir: where TFDS keeps prepared data sets; None for its own place.
    manual_dir: where files lie that were fetched by hand; those with the name
      and checksum of a download are taken for it.
    folder: of the data set "folder".
    classes: the class list of "imagenet100".
    archive: a file taken for the one download of cifar10, cifar100 or
      tiny_imagenet, whatever its name.
    archive_sha256: consent to an archive that is not the official one, by its
      checksum; the splits will carry it in their names.
    max_skipped: how many damaged images may be left out.

  Returns:
    Where it is, its splits and what was left out, in lines.

  Raises:
    PreparationError: TensorFlow, the network, files or consent are missing.
    ValueError: a name or parameter is wrong, or a folder is no data set.
  """
  if name == "digits":
    catalogue.check(name, {"folder": folder, "classes": classes})
    return "digits come with scikit-learn: there is nothing to prepare"
  made = catalogue.builder(
    name,
    folder=folder,
    classes=classes,
    data_dir=data_dir,
    max_skipped=max_skipped,
  )
  if catalogue.is_prepared(made):
    return _summary(name, made, "was already prepared")
  if catalogue.ENTRIES[name].stock:
    _require_tensorflow(name)
  if archive is None:
    catalogue.write(made, manual_dir=manual_dir)
  else:
    with _standing_in(name, made, pathlib.Path(archive), archive_sha256) as at:
      catalogue.write(made, manual_dir=at, extract_dir=at)
  return _summary(name, made, "is prepared")


def _require_tensorflow(name: str) -> None:
  if importlib.util.find_spec("tensorflow") is None:
    raise PreparationError(
      f"TensorFlow is not installed, and {name} is prepared by code of TFDS "
      "that needs it. Only this one step does: `pip install "
      "'relvit_jax[prepare]'` here, or prepare it elsewhere and copy the "
      "folder; reading and training do without"
    )


@contextlib.contextmanager
def _standing_in(
  name: str, made: Any, archive: pathlib.Path, consent: str | None
) -> Iterator[str]:
  """A manual directory where the archive has the name of the download."""
  official = made.url_infos or {}
  if len(official) != 1:
    wanted = ", ".join(info.filename for info in official.values())
    raise PreparationError(
      f"{name} is not made of one archive"
      + (f" but of {wanted}: put them into --manual_dir" if wanted else "")
    )
  ((url, info),) = official.items()
  if not archive.is_file():
    raise PreparationError(f"--archive={archive} is not a file")
  with archive.open("rb") as file:
    found = hashlib.file_digest(file, "sha256").hexdigest()
  if found != info.checksum and found != (consent or "").lower():
    raise PreparationError(
      f"--archive={archive} is not {info.filename} from {url}: its SHA-256 is "
      f"{found}, the official one {info.checksum}. If you trust it all the "
      f"same, say so with --archive_sha256={found}"
    )
  root = pathlib.Path(made.data_dir_root)
  root.mkdir(parents=True, exist_ok=True)
  # Unpacked in a place of its own: TFDS takes what an archive of this name
  # was once unpacked to for what it holds now.
  with tempfile.TemporaryDirectory(dir=root, prefix="unpacked.") as place:
    os.symlink(archive.resolve(), os.path.join(place, info.filename))
    if found == info.checksum:
      yield place
      return
    ours = type(info)(archive.stat().st_size, found, info.filename)
    with mock.patch.object(type(made), "url_infos", {url: ours}):
      yield place
    note = pathlib.Path(made.data_dir) / catalogue.ARCHIVE_NOTE
    note.write_text(f"not the official archive but {found[:12]}…\n", "utf-8")


def _summary(name: str, made: Any, state: str) -> str:
  reader = catalogue.reader(made)
  lines = [f"{name} {state} in {made.data_dir}"]
  lines += [
    f"  {split}: {info.num_examples:,} images"
    for split, info in reader.info.splits.items()
  ]
  metadata = reader.info.metadata or {}
  features: Any = reader.info.features
  lines.append(f"  {len(features['label'].names)} classes")
  skipped = metadata.get("skipped", ())
  if skipped:
    lines.append(f"  {len(skipped)} damaged images left out:")
    lines += [f"    {error}" for error in skipped]
  if metadata.get("ignored"):
    lines.append(f"  {metadata['ignored']:,} files that are no images")
  if metadata.get("elsewhere"):
    lines.append(
      f"  {metadata['elsewhere']:,} images outside train/, val/ and test/"
    )
  note = catalogue.archive_note(made)
  return "\n".join([*lines, f"  {note}"] if note else lines)
