"""relvit predict: what a checkpoint says of images."""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import Any

from relvit_jax.commands import CommandError, keep_compiled


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "images", nargs="+", metavar="IMAGE", type=pathlib.Path, help="files"
  )
  parser.add_argument(
    "--checkpoint", required=True, help="a work directory, or one in it"
  )
  parser.add_argument(
    "--which",
    choices=("last", "best"),
    help="which checkpoint of a work directory (last)",
  )
  parser.add_argument(
    "--top", type=int, default=5, help="classes to name (%(default)s)"
  )
  parser.add_argument(
    "--json", action="store_true", help="a JSON object a line instead"
  )


def main(arguments: argparse.Namespace) -> None:
  """Prints what each head of the model says of each image.

  Raises:
    CommandError: an image or the checkpoint cannot be used.
  """
  if arguments.top < 1:
    raise CommandError(f"--top={arguments.top} must be at least 1")
  keep_compiled()
  from relvit_jax.analysis import prediction
  from relvit_jax.training.trained import Trained

  try:
    pictures = [prediction.read(path) for path in arguments.images]
    trained = Trained(arguments.checkpoint, arguments.which)
  except (ValueError, FileNotFoundError) as error:
    raise CommandError(str(error)) from error
  for path, picture in zip(arguments.images, pictures, strict=True):
    answer = prediction.ask(trained, picture, arguments.top)
    if arguments.json:
      print(json.dumps({"image": str(path), **answer}))
    else:
      print(f"{path}: {_in_words(answer)}")


def _in_words(answer: dict[str, Any]) -> str:
  parts = []
  if "classes" in answer:
    named = (f"{name} {100 * p:.1f} %" for name, p in answer["classes"].items())
    parts.append(", ".join(named))
  if answer["metrics"]:
    from relvit_jax.training import progress

    parts.append(f"patches: {progress.in_words(answer['metrics'])}")
  return "; ".join(parts)
