"""relvit quickstart: three ways to spend training steps on the digits.

The paper compares supervised training with RelViT pre-training followed by
just as much supervised training. The third arm is the control that it lacks:
supervised training for as long as both stages of RelViT together.
"""

from __future__ import annotations

import argparse
import pathlib

from relvit_jax.commands import CommandError, keep_compiled


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--workdir",
    type=pathlib.Path,
    default=pathlib.Path("runs/quickstart"),
    help="folder for the page, its pictures and the numbers (%(default)s)",
  )
  parser.add_argument(
    "--seeds",
    type=int,
    default=5,
    help="runs of each arm, for the spread (%(default)s)",
  )
  parser.add_argument(
    "--steps",
    type=int,
    default=1_000,
    help="labelled training steps, a multiple of 100 (%(default)s)",
  )
  parser.add_argument(
    "--pretrain_steps",
    type=int,
    help="training steps without labels, a multiple of 100 (4 × --steps)",
  )


def main(arguments: argparse.Namespace) -> None:
  """Trains, prints the tables, writes the page.

  Raises:
    CommandError: an argument is out of range.
  """
  if arguments.seeds < 1:
    raise CommandError(f"--seeds={arguments.seeds} must be at least 1")
  for name in ("steps", "pretrain_steps"):
    steps = getattr(arguments, name)
    if steps is not None and (steps < 100 or steps % 100):
      raise CommandError(
        f"--{name}={steps} must be a multiple of 100, at least 100"
      )
  if arguments.workdir.exists() and not arguments.workdir.is_dir():
    raise CommandError(f"--workdir={arguments.workdir} is a file, not a folder")
  keep_compiled()
  # JAX, scikit-learn and matplotlib are not needed for a refusal or a --help.
  from relvit_jax.analysis import quickstart

  outcome = quickstart.run(
    arguments.workdir,
    arguments.seeds,
    arguments.steps,
    arguments.pretrain_steps,
  )
  print(f"\n{outcome}")
