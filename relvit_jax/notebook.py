"""What notebooks need besides: commands that stop them, images, pictures.

Everything runs in the notebook's own process: a TPU serves one at a time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import shutil
import sys
import zipfile
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from relvit_jax import cli
from relvit_jax.data import export, sources

# Dots an inch, by far more than a browser shows: sharp on fine screens.
_DPI = 160
# What an archive made on a Mac holds besides.
_NOT_IMAGES = "__MACOSX"

Path = str | os.PathLike[str]


class NotebookError(Exception):
  """Something that was asked for cannot be; no cell after it should run."""

  def _render_traceback_(self) -> list[str]:
    """For IPython: where in this package it was noticed is of no use."""
    return [str(self)]


def relvit(*words: Path) -> None:
  """Runs `relvit WORDS`, as a shell would.

  Raises:
    NotebookError: it did not end well; what it printed says why.
  """
  try:
    # A notebook shows what goes to stderr apart, and as if it were wrong.
    with contextlib.redirect_stderr(sys.stdout):
      status = cli.main([os.fspath(word) for word in words])
  except SystemExit as left:  # Of argparse, which has said why.
    status = left.code
  if status:
    typed = " ".join(["relvit", *map(str, words[:1])])
    raise NotebookError(f"{typed} stopped: see above")


def show(picture: Figure | Path, width: int = 800) -> None:
  """Shows a figure, or the PNG file of one, in the output of a cell.

  Args:
    picture: the figure or the path.
    width: in pixels of the page, at most.
  """
  # Only a notebook has it.
  from IPython.display import Image, display

  if isinstance(picture, Figure):
    file = io.BytesIO()
    picture.savefig(file, format="png", dpi=_DPI)
    data = file.getvalue()
    width = min(width, round(100 * picture.get_figwidth()))
  else:
    data = pathlib.Path(picture).read_bytes()
  display(Image(data=data, format="png", width=width))


def images(where: Path, scratch: Path) -> pathlib.Path:
  """The folder of images that a person means.

  Args:
    where: a folder, a .zip file of one, or "" for a demonstration: the digits
      of scikit-learn, a real scan a file.
    scratch: folder for what is unpacked or written; what is there is taken.

  Raises:
    NotebookError: there is no such folder or archive, or it is damaged.
  """
  if not os.fspath(where):
    return _made(pathlib.Path(scratch) / "digits", _write_digits)
  path = pathlib.Path(where).expanduser()
  if path.is_dir():
    return path
  if path.suffix.lower() != ".zip" or not path.is_file():
    raise NotebookError(
      f"images={os.fspath(where)!r} must be a folder or a .zip file, with "
      "train/CLASS/* in it; leave it empty for a demonstration"
    )
  size = path.stat().st_size

  def unpack(folder: pathlib.Path) -> None:
    try:
      shutil.unpack_archive(path, folder, "zip")
    except (shutil.ReadError, zipfile.BadZipFile) as error:
      raise NotebookError(
        f"{path} is no .zip file, or was cut short: {error}"
      ) from error

  return _top(_made(pathlib.Path(scratch) / f"{path.stem}-{size}", unpack))


def _write_digits(folder: pathlib.Path) -> None:
  """With the margin that is cut off when images are evaluated."""
  margin = ((0, 0), (1, 1), (1, 1), (0, 0))
  padded = {
    part: dataclasses.replace(split, images=np.pad(split.images, margin))
    for part, split in sources.digits().items()
  }
  export.write(padded, folder)


def _made(folder: pathlib.Path, make: Any) -> pathlib.Path:
  """The folder, made as a whole unless it is there."""
  if not folder.is_dir():
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    make(fresh)
    fresh.rename(folder)
  return folder


def _top(folder: pathlib.Path) -> pathlib.Path:
  """Without the folders that hold nothing but one other."""
  inside = [
    entry
    for entry in folder.iterdir()
    if entry.name != _NOT_IMAGES and not entry.name.startswith(".")
  ]
  only = inside[0] if len(inside) == 1 else None
  if only is None or not only.is_dir() or only.name == "train":
    return folder
  return _top(only)
