"""relvit plan: what training asks of TPUs, before they are rented."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

from relvit_jax.commands import CommandError, kept

EPILOG = """\
The dispatch that `relvit train` would run is compiled for the slice, on this
machine, which needs no TPU but the extra `tpu`. A data set that is not prepared
here is taken to be as large as it is known to be.

  relvit plan --config=cifar10:pretrain --topology=v5e:16x16
  relvit plan --config=imagenet100:joint,swin_tiny --topology=v6e:4x4 \\
    --config.batch_size=1024 --config.mesh.fsdp=4
  relvit plan --config=cifar10:pretrain --topology=v5e:2x4 --sweep
"""
# Of a sweep, as multiples of the config's batch, rounded up to what all chips
# share.
_BATCHES = (1, 4, 16, 64)
_FSDPS = (1, 4)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.epilog = EPILOG
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  parser.add_argument(
    "--config",
    metavar="NAME:STAGE[,…]",
    help="as of `relvit train`; --config.KEY=VALUE overrides a key",
  )
  parser.add_argument(
    "--topology",
    metavar="KIND:SHAPE",
    help="a slice of v4, v5e, v5p or v6e chips, such as v5e:16x16 or v4:4x4x4",
  )
  parser.add_argument(
    "--sweep",
    action="store_true",
    help="plan every batch and mesh of the two below, and say which that fits "
    "has the most images a second",
  )
  parser.add_argument(
    "--batch_sizes",
    nargs="+",
    type=int,
    metavar="NUMBER",
    help="for --sweep (1, 4, 16 and 64 times the config's, rounded up to what "
    "all chips share)",
  )
  parser.add_argument(
    "--fsdps",
    nargs="+",
    type=int,
    metavar="NUMBER",
    help="values of mesh.fsdp for --sweep (1 and 4)",
  )
  kept.add_arguments(parser)


def main(arguments: argparse.Namespace) -> None:
  """Compiles and prints.

  Raises:
    CommandError: an argument, the config or the slice cannot be, or the config
      does not fit the slice; the message says what would.
  """
  _check(arguments)
  if arguments.readme:
    _print_readme(arguments.readme)
    return
  from relvit_jax.commands.train import checked_config

  config = checked_config(arguments.config, arguments.overrides, here=False)
  import jax

  # The compiler needs no device, and must not take one.
  jax.config.update("jax_platforms", "cpu")
  from relvit_jax.analysis import ahead, chips

  if ahead.missing():
    raise CommandError(
      "relvit plan needs libtpu, the compiler for TPUs: pip install "
      "'relvit_jax[tpu]', or bash launch/environment.sh tpu in a clone"
    )
  try:
    where = chips.parse(arguments.topology)
    devices = ahead.devices(where)
    if arguments.sweep:
      found = _sweep(arguments, config, where, devices)
    else:
      found = _plan(arguments, config, where, devices)
  except ValueError as error:
    raise CommandError(str(error)) from error
  if arguments.json:
    kept.write(arguments.json, found)


def _check(arguments: argparse.Namespace) -> None:
  """Refuses what cannot be, before anything is loaded."""
  if arguments.readme:
    for name in ("config", "topology", "sweep", "json"):
      if getattr(arguments, name):
        raise CommandError(f"--readme goes without --{name}")
    return
  for name, example in (
    ("config", "cifar10:pretrain"),
    ("topology", "v5e:16x16"),
  ):
    if not getattr(arguments, name):
      raise CommandError(f"--{name} must be given, such as {example}")
  for name in ("batch_sizes", "fsdps"):
    given = getattr(arguments, name)
    if given and not arguments.sweep:
      raise CommandError(f"--{name} needs --sweep")
    if wrong := [number for number in given or () if number < 1]:
      raise CommandError(f"--{name}={wrong[0]} must be at least 1")
  kept.check("json", arguments.json)


def _plan(
  arguments: argparse.Namespace, config: Any, where: Any, devices: Any
) -> dict[str, Any]:
  from relvit_jax.analysis import ahead, plan, plan_search, plan_table

  planned = plan.Planned(config, where, devices)
  print(f"compiling for {where.name} …", file=sys.stderr, flush=True)
  try:
    made = planned.report() | {"config": arguments.config}
  except ahead.TooLargeError as error:
    fits = plan_search.largest_batch(config, where, devices, error)
    hint = (
      f"batch_size={fits} fits"
      if fits
      else "nor does the least that all chips share: a larger mesh.fsdp "
      "spreads the parameters, and more chips the images"
    )
    raise CommandError(
      f"batch_size={config.batch_size} does not fit {where.name}: {error}; "
      f"{hint}"
    ) from error
  made["overrides"] = list(arguments.overrides)
  print("\n".join(plan_table.lines(made)))
  return made


def _sweep(
  arguments: argparse.Namespace, config: Any, where: Any, devices: Any
) -> dict[str, Any]:
  from relvit_jax.analysis import plan_search, plan_table

  least = -(-config.batch_size // where.size) * where.size
  batch_sizes = arguments.batch_sizes or [least * times for times in _BATCHES]
  fsdps = arguments.fsdps or _FSDPS
  rows: list[dict[str, Any]] = []
  print(plan_table.SWEEP_HEADER, flush=True)
  for row in plan_search.sweep(config, where, devices, batch_sizes, fsdps):
    rows.append(row)
    print(plan_table.sweep_line(row), flush=True)
  best = plan_search.fastest(rows)
  if best is None:
    raise CommandError(f"none of these fits {where.name}")
  print(
    f"\nthe fastest that fits, by its least time: --config.batch_size="
    f"{best['batch_size']} --config.mesh.fsdp={best['fsdp']}\n"
    "A batch is part of a recipe: another one learns otherwise."
  )
  return {
    "config": arguments.config,
    "overrides": list(arguments.overrides),
    "topology": where.name,
    "sweep": rows,
  }


def _print_readme(files: list[pathlib.Path]) -> None:
  from relvit_jax.analysis import plan_table

  print(plan_table.markdown(kept.read(files, "memory")), end="")
