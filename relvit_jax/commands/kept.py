"""Numbers that a command keeps in a file, and tables made of them later."""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import Any

from relvit_jax.commands import CommandError


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """--json and --readme."""
  parser.add_argument(
    "--json", type=pathlib.Path, metavar="FILE", help="keep all numbers"
  )
  parser.add_argument(
    "--readme",
    nargs="+",
    type=pathlib.Path,
    metavar="FILE",
    help="print the README's table of kept numbers, and do nothing else",
  )


def check(name: str, path: pathlib.Path | None) -> None:
  """Refuses a file that could not be written, before anything is computed.

  Args:
    name: of the flag.
    path: its value.

  Raises:
    CommandError: says why.
  """
  if path and not path.parent.is_dir():
    raise CommandError(f"--{name}={path}: there is no folder {path.parent}")
  if path and path.is_dir():
    raise CommandError(f"--{name}={path} is a folder; it must be a file")


def write(path: pathlib.Path, numbers: Any) -> None:
  """Keeps them, in lines that a person can read."""
  text = json.dumps(numbers, indent=1, ensure_ascii=False)
  path.write_text(text + "\n", encoding="utf-8")


def read(files: list[pathlib.Path], *keys: str) -> list[dict[str, Any]]:
  """What was kept, for --readme.

  Args:
    keys: of which each must have one.

  Raises:
    CommandError: a file cannot be read, or holds something else.
  """
  found = []
  for path in files:
    try:
      numbers = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
      raise CommandError(f"--readme={path} cannot be read: {error}") from error
    if not isinstance(numbers, dict) or not numbers.keys() & {*keys}:
      raise CommandError(
        f"--readme={path} has none of {', '.join(keys)}: it must be a file "
        "that --json of the same command kept"
      )
    found.append(numbers)
  return found
