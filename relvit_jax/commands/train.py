"""relvit train: one stage of training, in a work directory.

The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import traceback
from typing import Any

from relvit_jax.commands import CommandError, CommandStopped, keep_compiled

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
    help="folder for the config, curves, checkpoints and summary; of several "
    "processes one that all of them reach",
  )
  processes = parser.add_argument_group(
    "several processes",
    "The hosts of a TPU slice and the tasks of a SLURM step find each other. "
    "Elsewhere start the command once for each process, with",
  )
  processes.add_argument(
    "--coordinator_address",
    metavar="HOST:PORT",
    help="where process 0 is reached by the others, at a free port",
  )
  processes.add_argument(
    "--num_processes", type=int, metavar="NUMBER", help="how many there are"
  )
  processes.add_argument(
    "--process_id", type=int, metavar="NUMBER", help="which this is, from 0"
  )


def main(arguments: argparse.Namespace) -> None:
  """Trains, or goes on.

  Raises:
    CommandError: the config, the work directory or the data cannot be used.
    CommandStopped: SIGTERM came, and all steps that were taken are saved.
  """
  _check_processes(arguments)
  config = checked_config(arguments.config, arguments.overrides)
  keep_compiled()
  # Devices are started only for a config that is right, and all else is
  # imported only if they can share its batches.
  from relvit_jax.training import distributed, preemption

  try:
    distributed.start(
      arguments.coordinator_address,
      arguments.num_processes,
      arguments.process_id,
    )
  except ValueError as error:
    raise CommandError(str(error)) from error
  try:
    _train(config, arguments.workdir)
  except preemption.PreemptedError as stopped:
    raise CommandStopped(
      f"{stopped}: told to by SIGTERM. All is saved, and the same command goes "
      "on from there"
    ) from None
  except Exception as error:
    if not distributed.several():
      raise
    if isinstance(error, CommandError):
      print(f"relvit train: {error}", file=sys.stderr)
      distributed.leave(2)
    traceback.print_exc()
    distributed.leave(1)


def _train(config: Any, workdir: pathlib.Path) -> None:
  """What follows once the processes of a run know each other."""
  from relvit_jax.training import distributed, partitioning

  try:
    distributed.check_same(told(config))
    partitioning.check_config(config)
    from relvit_jax.training import datasets, experiment

    run = distributed.together(lambda: experiment.Experiment(config, workdir))
    if distributed.several():
      distributed.check_same(datasets.fingerprint(run.splits))
    state = run.first_state()
  except (ValueError, FileNotFoundError) as error:
    raise CommandError(str(error)) from error
  run.run(state)


def told(config: Any) -> dict[str, Any]:
  """What all processes of a run must have in common, by name."""
  import jax

  import relvit_jax
  from relvit_jax import config as configs

  return configs.flat(json.loads(configs.to_json(config))) | {
    "the version of relvit_jax": relvit_jax.__version__,
    "the version of jax": jax.__version__,
    "the number of its devices": jax.local_device_count(),
    "their kind": jax.local_devices()[0].device_kind,
  }


def _check_processes(arguments: argparse.Namespace) -> None:
  """Raises unless the flags of several processes are all there, or none."""
  names = ("coordinator_address", "num_processes", "process_id")
  given = {name: getattr(arguments, name) for name in names}
  missing = [f"--{name}" for name, value in given.items() if value is None]
  if len(missing) == len(names):
    return
  if missing:
    raise CommandError(
      f"{' and '.join(missing)} must be given too: the processes of a run are "
      "told all three, or none where they find each other"
    )
  address, number, own = given.values()
  host, _, port = address.rpartition(":")
  if not host or not port.isdecimal():
    raise CommandError(
      f"--coordinator_address={address} must be HOST:PORT, such as "
      "10.0.0.2:1234"
    )
  if number < 1:
    raise CommandError(f"--num_processes={number} must be at least 1")
  if not 0 <= own < number:
    raise CommandError(
      f"--process_id={own} must be from 0 to {number - 1}: "
      f"--num_processes={number}"
    )


def checked_config(spec: str, overrides: list[str], here: bool = True) -> Any:
  """The config that was asked for.

  Args:
    here: as of `config_checks.check`.

  Raises:
    CommandError: it cannot be; every wrong key is named.
  """
  from relvit_jax import config, config_checks

  try:
    result = config.load(spec, overrides)
    config_checks.check(result, here)
  except ValueError as error:
    raise CommandError(str(error)) from error
  return result
