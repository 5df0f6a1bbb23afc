"""relvit data: what data sets there are, and to put one on disk."""

from __future__ import annotations

import argparse
import pathlib

from relvit_jax.commands import CommandError, keep_compiled
from relvit_jax.data.builders import catalogue


def add_arguments(parser: argparse.ArgumentParser) -> None:
  actions = parser.add_subparsers(
    dest="action", metavar="ACTION", required=True
  )
  _add_prepare(actions)
  listing = actions.add_parser(
    "list", help="the data sets by name, what each needs, and which are there"
  )
  _add_data_dir(listing)
  _add_show(actions)


def main(arguments: argparse.Namespace) -> None:
  """Does what `arguments.action` says.

  Raises:
    CommandError: it cannot be done as typed.
  """
  actions = {"prepare": _prepare, "list": _list, "show": _show}
  actions[arguments.action](arguments)


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--data_dir",
    type=pathlib.Path,
    help="where prepared data sets lie ($TFDS_DATA_DIR or "
    "~/tensorflow_datasets)",
  )


def _add_prepare(actions: argparse._SubParsersAction) -> None:
  parser = actions.add_parser(
    "prepare", help="download or read a data set and write it as ArrayRecord"
  )
  parser.add_argument(
    "name", metavar="NAME", help=f"one of {', '.join(catalogue.ENTRIES)}"
  )
  _add_data_dir(parser)
  parser.add_argument(
    "--manual_dir",
    type=pathlib.Path,
    help="where files lie that you fetched by hand (DATA_DIR/downloads/manual)",
  )
  parser.add_argument(
    "--folder", type=pathlib.Path, help="your images, for the data set folder"
  )
  parser.add_argument(
    "--classes",
    type=pathlib.Path,
    help="list of classes for imagenet100: a WordNet number a line, or "
    "Labels.json",
  )
  parser.add_argument(
    "--archive",
    type=pathlib.Path,
    help="file to take for the download of cifar10, cifar100 or tiny_imagenet",
  )
  parser.add_argument(
    "--archive_sha256",
    help="checksum of an archive that is not the official one, as consent",
  )
  parser.add_argument(
    "--max_skipped",
    type=int,
    default=0,
    help="damaged images that may be left out (%(default)s)",
  )


def _add_show(actions: argparse._SubParsersAction) -> None:
  parser = actions.add_parser(
    "show", help="a picture of what the model sees of some images"
  )
  parser.add_argument(
    "--config",
    required=True,
    metavar="NAME:STAGE",
    help="as for `relvit train`, with --config.KEY=VALUE",
  )
  parser.add_argument(
    "--out",
    type=pathlib.Path,
    default=pathlib.Path("sheet.png"),
    help="the picture, a .png, .pdf or .svg (%(default)s)",
  )
  parser.add_argument(
    "--images", type=int, default=8, help="rows (%(default)s)"
  )
  parser.add_argument(
    "--views", type=int, default=6, help="of each in training (%(default)s)"
  )


def _prepare(arguments: argparse.Namespace) -> None:
  # TFDS is not needed for a --help.
  from relvit_jax.data import prepare

  try:
    print(
      prepare.prepare(
        arguments.name,
        data_dir=arguments.data_dir,
        manual_dir=arguments.manual_dir,
        folder=arguments.folder,
        classes=arguments.classes,
        archive=arguments.archive,
        archive_sha256=arguments.archive_sha256,
        max_skipped=arguments.max_skipped,
      )
    )
  except ValueError as error:
    raise CommandError(str(error)) from error


def _list(arguments: argparse.Namespace) -> None:
  for name, entry in catalogue.ENTRIES.items():
    print(f"{name}: {entry.about}", flush=True)
    if name != "digits":
      for place in catalogue.prepared(name, arguments.data_dir):
        print(f"  prepared in {place}")
    print(f"  needs {entry.needs}")


def _show(arguments: argparse.Namespace) -> None:
  from relvit_jax.commands.train import checked_config

  for name in ("images", "views"):
    value = getattr(arguments, name)
    if value < 1:
      raise CommandError(f"--{name}={value} must be at least 1")
  if arguments.out.suffix not in (".png", ".pdf", ".svg"):
    raise CommandError(f"--out={arguments.out} must be a .png, .pdf or .svg")
  config = checked_config(arguments.config, arguments.overrides)
  keep_compiled()
  from relvit_jax.analysis import contact_sheet
  from relvit_jax.training import datasets

  try:
    train = datasets.open_splits(config, ("train",))["train"]
  except ValueError as error:
    raise CommandError(str(error)) from error
  rows = min(arguments.images, len(train))
  figure = contact_sheet.sheet(config, train, rows, arguments.views)
  arguments.out.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(arguments.out, dpi=160)
  print(f"{arguments.out}: {rows} of {len(train):,} images of {train.name}")
