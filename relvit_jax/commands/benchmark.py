"""relvit benchmark: how fast a config trains here, and how fast it could."""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
from typing import Any

from relvit_jax.commands import CommandError
from relvit_jax.commands.train import checked_config

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
    help="to measure each part for; long steps are taken a dozen times in any "
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
    "--topology",
    metavar="NAME:SHAPE",
    help="compile the bare step for TPUs that are not there, such as v5e:2x2, "
    "and say what it moves; nothing is measured; needs the extra `tpu`",
  )
  parser.add_argument(
    "--pairs",
    action="store_true",
    help="measure the pair losses alone, against the number of patches, dense "
    "and block by block",
  )
  parser.add_argument(
    "--chips", type=int, metavar="NUMBER", help="of the topology (all)"
  )
  parser.add_argument(
    "--json", type=pathlib.Path, metavar="FILE", help="keep all numbers"
  )
  parser.add_argument(
    "--figure", type=pathlib.Path, metavar="FILE", help="draw the sweeps"
  )
  parser.add_argument(
    "--readme",
    nargs="+",
    type=pathlib.Path,
    metavar="FILE",
    help="print the README's table of kept numbers; nothing is measured",
  )


def main(arguments: argparse.Namespace) -> None:
  """Measures and prints.

  Raises:
    CommandError: an argument or the config cannot be; the message says why.
  """
  if arguments.readme:
    _print_readme(arguments.readme)
    return
  _check(arguments)
  if arguments.pairs:
    _measure_pairs(arguments)
    return
  config = checked_config(arguments.config, arguments.overrides)
  if arguments.rivals:
    _check_rivals(config)
  _check_sweeps(arguments, config)
  if arguments.topology:
    _compile_ahead(arguments, config)
    return
  # Devices are started only for what is right.
  from relvit_jax.training import partitioning

  try:
    mesh = partitioning.check_config(config)
    examples, colours = _examples(arguments, config)
  except ValueError as error:
    raise CommandError(str(error)) from error
  _measure(arguments, config, mesh, examples, colours)


def _check(arguments: argparse.Namespace) -> None:
  if not (arguments.config or arguments.pairs):
    raise CommandError("--config must be given, such as cifar10:pretrain")
  for name, known in (("parts", PARTS), ("sweep", SWEEPS)):
    for given in getattr(arguments, name):
      if given not in known:
        raise CommandError(
          f"--{name} names {given!r}; there are {', '.join(known)}"
        )
  _check_alone(arguments)
  if arguments.chips is not None and not arguments.topology:
    raise CommandError(f"--chips={arguments.chips} needs --topology")
  if not arguments.seconds > 0:
    raise CommandError(f"--seconds={arguments.seconds} must be above 0")
  if arguments.figure and not (arguments.sweep or arguments.pairs):
    raise CommandError(
      f"--figure={arguments.figure} draws what --sweep measures: name some of "
      f"{', '.join(SWEEPS)}"
    )
  for name in ("json", "figure"):
    path = getattr(arguments, name)
    if path and not path.parent.is_dir():
      raise CommandError(f"--{name}={path}: there is no folder {path.parent}")


def _check_alone(arguments: argparse.Namespace) -> None:
  """What is not measured beside these would be left out in silence."""
  for alone, others in (
    ("pairs", ("config", "topology", "sweep", "rivals", "prepared")),
    ("topology", ("sweep", "rivals")),
  ):
    for other in others if getattr(arguments, alone) else ():
      if getattr(arguments, other):
        raise CommandError(f"--{alone} goes without --{other}")


def _check_rivals(config: Any) -> None:
  from relvit_jax.analysis import rival

  if missing := rival.missing():
    raise CommandError(
      f"--rivals needs {' and '.join(missing)}: pip install "
      "'relvit_jax[benchmark]'"
    )
  if problems := rival.problems(config):
    raise CommandError("\n".join(["--rivals:", *problems]))


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


def _compile_ahead(arguments: argparse.Namespace, config: Any) -> None:
  """Compiles for chips that are not there, and prints what a step would do."""
  import jax

  # The compiler needs no device, and must not take one.
  jax.config.update("jax_platforms", "cpu")
  from relvit_jax.analysis import ahead, benchmark_table
  from relvit_jax.training import partitioning, stage

  if ahead.missing():
    raise CommandError("--topology needs libtpu: pip install 'relvit_jax[tpu]'")
  examples, colours = _examples(arguments, config)
  try:
    chips = ahead.devices(arguments.topology, arguments.chips)
    mesh = partitioning.make_mesh(config.mesh.fsdp, chips)
    made = stage.Stage(config, examples, mesh, colours)
  except ValueError as error:
    raise CommandError(str(error)) from error
  found = ahead.report(made) | {"topology": arguments.topology}
  print(benchmark_table.ahead(found))
  if arguments.json:
    _write(arguments.json, found)


def _measure_pairs(arguments: argparse.Namespace) -> None:
  from relvit_jax.analysis import machine, pair_scaling

  rows = pair_scaling.measure()
  print(pair_scaling.table(rows))
  if arguments.json:
    kept = {
      "machine": machine.describe(),
      "pairs": [row._asdict() for row in rows],
    }
    _write(arguments.json, kept)
  if arguments.figure:
    pair_scaling.figure(rows).savefig(arguments.figure, dpi=150)


def _write(path: pathlib.Path, report: Any) -> None:
  text = json.dumps(report, indent=1, ensure_ascii=False)
  path.write_text(text + "\n", encoding="utf-8")


def _measure(
  arguments: argparse.Namespace,
  config: Any,
  mesh: Any,
  examples: Any,
  colours: tuple[Any, Any],
) -> None:
  from relvit_jax.analysis import benchmark, benchmark_sweep, benchmark_table
  from relvit_jax.training import stage

  here = benchmark.of_machine(benchmark.dtypes(), arguments.seconds / 2)
  made = stage.Stage(config, examples, mesh, colours)
  with contextlib.ExitStack() as opened:
    rivals = []
    if arguments.rivals:
      rivals = [opened.enter_context(one) for one in benchmark.rivals_of(made)]
    result = benchmark.measure(
      made, here, arguments.parts, arguments.seconds, rivals
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
    _write(arguments.json, report)
  if arguments.figure:
    benchmark_sweep.figure(report["sweeps"]).savefig(arguments.figure, dpi=150)


def _print_readme(files: list[pathlib.Path]) -> None:
  from relvit_jax.analysis import benchmark_table

  reports = []
  for path in files:
    try:
      reports.append(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
      raise CommandError(f"--readme={path} cannot be read: {error}") from error
  print(benchmark_table.markdown(reports), end="")
