"""relvit benchmark: how fast a config trains here, and how fast it could."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
from typing import Any

from relvit_jax.commands import CommandError, benchmark_arguments, kept
from relvit_jax.commands.train import checked_config

add_arguments = benchmark_arguments.add_arguments


def main(arguments: argparse.Namespace) -> None:
  """Measures and prints.

  Raises:
    CommandError: an argument or the config cannot be; the message says why.
  """
  if arguments.readme:
    _print_readme(arguments.readme)
    return
  benchmark_arguments.check(arguments)
  if arguments.pairs:
    _measure_pairs(arguments)
    return
  config = checked_config(arguments.config, arguments.overrides)
  if arguments.rivals:
    _check_rivals(config)
  _check_sweeps(arguments, config)
  # Devices are started only for what is right.
  from relvit_jax.training import partitioning

  try:
    mesh = partitioning.check_config(config)
    if arguments.rivals:
      _check_devices(mesh)
    examples, colours = _examples(arguments, config)
  except ValueError as error:
    raise CommandError(str(error)) from error
  _measure(arguments, config, mesh, examples, colours)


def _check_rivals(config: Any) -> None:
  from relvit_jax.analysis import rival

  if missing := rival.missing():
    raise CommandError(
      f"--rivals needs {' and '.join(missing)}: pip install "
      "'relvit_jax[benchmark]'"
    )
  if problems := rival.problems(config):
    raise CommandError("\n".join(["--rivals:", *problems]))


def _check_devices(mesh: Any) -> None:
  from relvit_jax.analysis import rival
  from relvit_jax.training import partitioning

  if reason := rival.unlike(mesh.size, partitioning.platform(mesh)):
    raise CommandError(f"--rivals: {reason}")


def _check_sweeps(arguments: argparse.Namespace, config: Any) -> None:
  from relvit_jax.analysis import benchmark_sweep

  for what in arguments.sweep:
    try:
      list(benchmark_sweep.points(config, what))
    except ValueError as error:
      raise CommandError(str(error)) from error


def _examples(
  arguments: argparse.Namespace, config: Any
) -> tuple[Any, tuple[Any, Any]]:
  """(the training split, mean and standard deviation of its colours)."""
  from relvit_jax.analysis import benchmark
  from relvit_jax.training import datasets

  if arguments.prepared:
    examples = datasets.load(config, ("train",)).splits["train"]
    return examples, datasets.colours(config, examples)
  if config.data.mean is not None:
    return benchmark.synthetic(config), (config.data.mean, config.data.std)
  return benchmark.synthetic(config), ((0.5,) * 3, (0.25,) * 3)


def _measure_pairs(arguments: argparse.Namespace) -> None:
  from relvit_jax.analysis import machine, pair_scaling

  rows = pair_scaling.measure()
  print(pair_scaling.table(rows))
  if arguments.json:
    found = {
      "machine": machine.describe(),
      "pairs": [row._asdict() for row in rows],
    }
    kept.write(arguments.json, found)
  if arguments.figure:
    pair_scaling.figure(rows).savefig(arguments.figure, dpi=150)


def _measure(
  arguments: argparse.Namespace,
  config: Any,
  mesh: Any,
  examples: Any,
  colours: tuple[Any, Any],
) -> None:
  from relvit_jax.analysis import benchmark, benchmark_sweep, benchmark_table
  from relvit_jax.training import stage

  try:
    made = stage.Stage(config, examples, mesh, colours)
  except ValueError as error:
    # What the config asks for and this kind of device has not.
    raise CommandError(str(error)) from error
  here = benchmark.of_machine(benchmark.dtypes(), arguments.seconds / 2)
  with contextlib.ExitStack() as opened:
    rivals = []
    if arguments.rivals:
      rivals = [opened.enter_context(one) for one in benchmark.rivals_of(made)]
    result = benchmark.measure(
      made, here, arguments.parts, arguments.seconds, rivals, arguments.profile
    )
    result["rivals"] = {one.name: one.answer for one in rivals}
  report = {"machine": here, "source": examples.name, "result": result}
  print(benchmark_table.table(report), flush=True)
  report["sweeps"] = {}
  for what in arguments.sweep:
    report["sweeps"][what] = sweep = benchmark_sweep.measure(
      config, examples, mesh, colours, here, what, arguments.seconds
    )
    print("", *benchmark_sweep.lines({what: sweep}), sep="\n", flush=True)
  if arguments.json:
    kept.write(arguments.json, report)
  if arguments.figure:
    benchmark_sweep.figure(report["sweeps"]).savefig(arguments.figure, dpi=150)


def _print_readme(files: list[pathlib.Path]) -> None:
  from relvit_jax.analysis import benchmark_table, pair_scaling

  reports = kept.read(files, "result", "pairs")
  tables = []
  if steps := [report for report in reports if "result" in report]:
    tables.append(benchmark_table.markdown(steps))
  for report in reports:
    if "pairs" in report:
      rows = [pair_scaling.Row(**row) for row in report["pairs"]]
      tables.append(pair_scaling.markdown(rows))
  print("\n".join(tables), end="")
