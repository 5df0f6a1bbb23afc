"""relvit train: one stage of training, in a work directory.

The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from relvit_jax.commands import CommandError, keep_compiled

EPILOG = """\
Any key of a config is overridden by --config.KEY=VALUE, with the dots of the
key: --config.optimizer.lr=1e-3 --config.num_epochs=10. configs/common.py says
what each key is.

  relvit train --config=digits:pretrain --workdir=runs/pretrain
  relvit train --config=digits:finetune --config.init_from=runs/pretrain \\
    --workdir=runs/finetune
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.epilog = EPILOG
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  parser.add_argument(
    "--config",
    required=True,
    metavar="NAME:STAGE[,BACKBONE][,faithful]",
    help="a data set's config (cifar10, cifar100, svhn, flowers102, "
    "tiny_imagenet, imagenet100, folder, digits, or the path of a .py file); "
    "pretrain, finetune, joint, supervised or linear; a backbone; and whether "
    "every quirk is the official code's",
  )
  parser.add_argument(
    "--workdir",
    required=True,
    type=pathlib.Path,
    help="folder for the config, curves, checkpoints and summary",
  )


def main(arguments: argparse.Namespace) -> None:
  """Trains, or goes on.

  Raises:
    CommandError: the config, the work directory or the data cannot be used.
  """
  config = checked_config(arguments.config, arguments.overrides)
  keep_compiled()
  # Devices are started only for a config that is right, and all else is
  # imported only if they can share its batches.
  from relvit_jax.training import partitioning

  try:
    partitioning.check_config(config)
    from relvit_jax.training import experiment

    run = experiment.Experiment(config, arguments.workdir)
    state = run.first_state()
  except (ValueError, FileNotFoundError) as error:
    raise CommandError(str(error)) from error
  run.run(state)


def checked_config(spec: str, overrides: list[str]) -> Any:
  """The config that was asked for.

  Raises:
    CommandError: it cannot be; every wrong key is named.
  """
  from relvit_jax import config, config_checks

  try:
    result = config.load(spec, overrides)
    config_checks.check(result)
  except ValueError as error:
    raise CommandError(str(error)) from error
  return result
