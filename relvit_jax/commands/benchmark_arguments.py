"""What `relvit benchmark` is asked, and what of it cannot be."""

from __future__ import annotations

import argparse
import pathlib

from relvit_jax.commands import CommandError, kept

_NAMES = "step alone augmentation heads optimizer feed end_to_end"
PARTS = tuple(_NAMES.split())
SWEEPS = ("batch", "patches", "depth")

EPILOG = """\
First the machine is measured: matrix products and copies. Then the parts of a
training step, in turn, on random pixels of the shape of the config's images;
no part but the decoding of a streaming feed depends on what they show.

  relvit benchmark --config=cifar10:pretrain --config.batch_size=32
  relvit benchmark --config=cifar10:pretrain --rivals --json result.json
  relvit benchmark --config=cifar10:pretrain,vit_tiny --parts step \\
    --sweep batch patches depth --figure cost.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.epilog = EPILOG
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  parser.add_argument(
    "--config",
    metavar="NAME:STAGE[,…]",
    help="as of `relvit train`; --config.KEY=VALUE overrides a key",
  )
  parser.add_argument(
    "--prepared",
    action="store_true",
    help="read the config's own data set, in place of random pixels",
  )
  parser.add_argument(
    "--seconds",
    type=float,
    default=5.0,
    metavar="SECONDS",
    help="to measure each part for; long steps are taken three times in any "
    "case (5)",
  )
  parser.add_argument(
    "--parts",
    nargs="+",
    metavar="PART",
    default=list(PARTS),
    help=f"some of {', '.join(PARTS)} (all)",
  )
  parser.add_argument(
    "--profile",
    action="store_true",
    help="also say where the time of a step goes, operation by operation",
  )
  parser.add_argument(
    "--sweep",
    nargs="+",
    metavar="WHAT",
    default=[],
    help=f"also time the step against some of {', '.join(SWEEPS)}",
  )
  _add_modes(parser)


def _add_modes(parser: argparse.ArgumentParser) -> None:
  """What else to measure, or instead, and where the numbers go."""
  parser.add_argument(
    "--rivals",
    action="store_true",
    help="also time the same step in PyTorch, with Hugging Face's ViT, eager "
    "and compiled; needs the extra `benchmark`",
  )
  parser.add_argument(
    "--pairs",
    action="store_true",
    help="measure the pair losses alone, against the number of patches, dense "
    "and block by block",
  )
  parser.add_argument(
    "--figure", type=pathlib.Path, metavar="FILE", help="draw the sweeps"
  )
  kept.add_arguments(parser)


def check(arguments: argparse.Namespace) -> None:
  """Refuses what cannot be, before anything is loaded.

  Raises:
    CommandError: says what, and what would be right.
  """
  if not (arguments.config or arguments.pairs):
    raise CommandError("--config must be given, such as cifar10:pretrain")
  for name, known in (("parts", PARTS), ("sweep", SWEEPS)):
    for given in getattr(arguments, name):
      if given not in known:
        raise CommandError(
          f"--{name} names {given!r}; there are {', '.join(known)}"
        )
  _check_alone(arguments)
  if arguments.profile and "step" not in arguments.parts:
    raise CommandError("--profile is of the step, which --parts leaves out")
  if not arguments.seconds > 0:
    raise CommandError(f"--seconds={arguments.seconds} must be above 0")
  if arguments.figure and not (arguments.sweep or arguments.pairs):
    raise CommandError(
      f"--figure={arguments.figure} draws what --sweep measures: name some of "
      f"{', '.join(SWEEPS)}"
    )
  for name in ("json", "figure"):
    kept.check(name, getattr(arguments, name))


def _check_alone(arguments: argparse.Namespace) -> None:
  """What is not measured beside the pairs would be left out in silence."""
  others = ("config", "sweep", "rivals", "prepared", "profile")
  for other in others if arguments.pairs else ():
    if getattr(arguments, other):
      raise CommandError(f"--pairs goes without --{other}")
