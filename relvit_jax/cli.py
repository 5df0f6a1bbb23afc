"""`relvit <command>`: finds the command and imports nothing else."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence

import relvit_jax
from relvit_jax import accelerators, large_pages
from relvit_jax.commands import CommandError, CommandStopped

# A command is a module of relvit_jax.commands with `add_arguments(parser)`
# and `main(arguments)`.
COMMANDS = {
  "train": "one stage of training, in a work directory",
  "evaluate": "score a checkpoint: accuracies, kNN, linear probe",
  "predict": "what a checkpoint says of images",
  "data": "prepare data sets, and look at them",
  "models": "what the models have and cost, in a table",
  "benchmark": "how fast a config trains here, and how fast it could",
  "plan": "what training asks of TPUs, before they are rented",
  "quickstart": "train on scikit-learn's digits and write a page of results",
}
# Those that compute for long.
_TRAIN = ("train", "benchmark", "quickstart")


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs a command.

  Args:
    arguments: as typed after `relvit`; None for those of the process.

  Returns:
    The exit status: 0, 1 for what went wrong, 2 for what cannot be; of what a
    signal ended, 130 or 143, as a shell has it.
  """
  typed = list(sys.argv[1:] if arguments is None else arguments)
  parser = argparse.ArgumentParser(
    prog="relvit",
    description="RelViT: vision transformers that learn where patches sit.",
    epilog="`relvit COMMAND --help` says more about a command.",
  )
  parser.add_argument(
    "--version", action="version", version=relvit_jax.__version__
  )
  commands = parser.add_subparsers(
    dest="command", metavar="COMMAND", required=True
  )
  subparsers = {
    name: commands.add_parser(
      name, help=text, description=text[0].upper() + text[1:]
    )
    for name, text in COMMANDS.items()
  }
  if not typed:
    parser.print_help()
    return 2
  # Only the command that was asked for is imported.
  chosen = next((word for word in typed if word in COMMANDS), None)
  if chosen is None:
    parser.parse_args(typed)
    return 2
  if arguments is None:
    accelerators.leave_libtpu_out()
    if chosen in _TRAIN:
      large_pages.start_with()
  command = importlib.import_module(f"relvit_jax.commands.{chosen}")
  command.add_arguments(subparsers[chosen])
  parsed, others = parser.parse_known_args(typed)
  parsed.overrides = _overrides(
    subparsers[chosen], hasattr(parsed, "config"), others
  )
  try:
    command.main(parsed)
  except CommandError as error:
    print(f"relvit {chosen}: {error}", file=sys.stderr)
    return 2
  except CommandStopped as stopped:
    print(f"relvit {chosen}: {stopped}", file=sys.stderr)
    return 128 + signal.SIGTERM
  except BrokenPipeError:
    # Whoever read the output, such as `head`, has seen enough; Python would
    # complain of the rest when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except (OSError, FloatingPointError) as error:
    print(f"relvit {chosen}: {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print(f"\nrelvit {chosen}: interrupted", file=sys.stderr)
    return 130
  return 0


def _overrides(
  parser: argparse.ArgumentParser, takes_config: bool, words: Sequence[str]
) -> list[str]:
  """`--config.KEY=VALUE` → `KEY=VALUE`.

  Ends the process, as argparse does, at anything else.
  """
  prefix = "--config."
  for word in words:
    if not takes_config or not word.startswith(prefix):
      parser.error(f"unrecognized argument: {word}")
  return [word.removeprefix(prefix) for word in words]


if __name__ == "__main__":
  sys.exit(main())
