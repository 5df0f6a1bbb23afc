"""relvit models: a table of what the models have and cost."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from relvit_jax.commands import CommandError
from relvit_jax.models import variants

EPILOG = """\
Without --image_size and --patch_size a backbone has a row for each size that
the paper's code trains it at. Other sizes are as free as the models are:

  relvit models --backbone vit_small --image_size 224 --patch_size 16
  relvit models --backbone vit swin t2t_vit --tasks label --num_classes 10
"""

LEGEND = """\
image    pixels a side / those of a patch
tokens   in the blocks, the class token included; Swin's in its first stage
pairs    grid of the patches that the heads compare
GFLOPs   10⁹ operations in matrix products, by formula; a multiply and an add
         are two, training is the forward and the backward pass
saved    10⁶ bytes that JAX keeps of an image from the forward to the backward
         pass; XLA may compute some of it again, and needs room to work in;
         parameters, gradients and the optimiser's state come on top"""

LEGEND_COMPILED = """\
XLA/     operations in the matrix products of the training step as XLA compiles
formula  it for a CPU, over those by formula"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.epilog = EPILOG
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  parser.add_argument(
    "--backbone",
    nargs="+",
    metavar="NAME",
    default=list(variants.SIZES),
    help=f"some of {', '.join([*variants.FAMILIES, *variants.SIZES])} (all)",
  )
  parser.add_argument(
    "--image_size",
    nargs="+",
    type=int,
    metavar="PIXELS",
    help="of square images",
  )
  parser.add_argument(
    "--patch_size",
    nargs="+",
    type=int,
    metavar="PIXELS",
    help="of square patches; Swin's of its first stage; T2T-ViT has none",
  )
  parser.add_argument(
    "--tasks",
    nargs="+",
    metavar="TASK",
    default=["relation", "position"],
    help=f"some of {', '.join(variants.ALL_TASKS)} (relation position)",
  )
  parser.add_argument(
    "--num_classes", type=int, metavar="NUMBER", help="for the label task"
  )
  parser.add_argument(
    "--dtype",
    nargs="+",
    choices=("float32", "bfloat16"),
    default=["float32", "bfloat16"],
    help="compute types to count the bytes of (both)",
  )
  parser.add_argument(
    "--compile",
    action="store_true",
    help="also compile each training step, for a CPU, and count its products: "
    "some seconds a row",
  )
  parser.add_argument(
    "--json", action="store_true", help="a JSON object a line instead"
  )


def main(arguments: argparse.Namespace) -> None:
  """Prints a row for every model that there is.

  Raises:
    CommandError: an argument is none of those that there are, or no model can
      be made; the message says why.
  """
  _check(arguments)
  for name in ("tasks", "dtype"):
    setattr(arguments, name, list(dict.fromkeys(getattr(arguments, name))))
  arguments.backbone = _backbones(arguments.backbone)
  import jax

  # Nothing is computed: no accelerator is to be taken for it.
  jax.config.update("jax_platforms", "cpu")
  left_out: list[str] = []
  rows = _rows(arguments, left_out)
  # The first one tells whether there is a table at all.
  first = next(rows, None)
  if first is None:
    raise CommandError("no such model can be made:\n" + "\n".join(left_out))
  if arguments.json:
    _print_json(first, rows, arguments)
  else:
    _print_table(first, rows, arguments)
  for line in left_out:
    print(f"left out: {line}", file=sys.stderr)


def _check(arguments: argparse.Namespace) -> None:
  for name in ("image_size", "patch_size"):
    for pixels in getattr(arguments, name) or ():
      if pixels < 1:
        raise CommandError(f"--{name}={pixels} must be at least 1")
  for task in arguments.tasks:
    if task not in variants.ALL_TASKS:
      raise CommandError(
        f"--tasks names {task!r}; there are {', '.join(variants.ALL_TASKS)}"
      )
  if "label" in arguments.tasks:
    if arguments.num_classes is None:
      raise CommandError("--tasks label needs --num_classes")
    if arguments.num_classes < 1:
      raise CommandError(
        f"--num_classes={arguments.num_classes} must be at least 1"
      )
  elif arguments.num_classes is not None:
    raise CommandError(
      f"--num_classes={arguments.num_classes} needs label among --tasks"
    )


def _backbones(names: list[str]) -> list[str]:
  """Each variant once, a family as the variant that it stands for."""
  try:
    families = [variants.family_of(name) for name in names]
  except ValueError as error:
    raise CommandError(f"--{error}") from error
  pairs = zip(names, families, strict=True)
  return list(
    dict.fromkeys(
      variants.FAMILIES[family].variant if name == family else name
      for name, family in pairs
    )
  )


def _rows(arguments: argparse.Namespace, left_out: list[str]) -> Iterator[Any]:
  """Rows as they are computed; adds to `left_out` what cannot be made."""
  from relvit_jax.analysis import model_table

  for backbone in arguments.backbone:
    for image_size, patch_size in model_table.combinations(
      backbone, arguments.image_size, arguments.patch_size
    ):
      try:
        yield model_table.describe(
          backbone,
          image_size,
          patch_size,
          arguments.tasks,
          arguments.num_classes,
          dtypes=arguments.dtype,
          compiles=arguments.compile,
        )
      except ValueError as error:
        left_out.append(
          f"{backbone} at {_sizes(image_size, patch_size)}: {error}"
        )


def _print_json(
  first: Any, rows: Iterator[Any], arguments: argparse.Namespace
) -> None:
  asked = {"tasks": arguments.tasks, "num_classes": arguments.num_classes}
  for row in _all(first, rows):
    print(json.dumps(dataclasses.asdict(row) | asked), flush=True)


def _print_table(
  first: Any, rows: Iterator[Any], arguments: argparse.Namespace
) -> None:
  width = max(map(len, arguments.backbone))
  groups = _columns(list(first.activation_bytes), arguments.compile)
  columns = [column for _, group in groups for column in group]
  tops = (f"{top:>{sum(w for _, w, _ in group)}}" for top, group in groups)
  print(" " * width + "".join(tops))
  print(
    f"{'model':{width}}" + "".join(f"{name:>{w}}" for name, w, _ in columns)
  )
  family = variants.family_of(first.backbone)
  for row in _all(first, rows):
    if variants.family_of(row.backbone) != family:
      family = variants.family_of(row.backbone)
      print()
    cells = (f"{show(row):>{w}}" for _, w, show in columns)
    print(f"{row.backbone:{width}}" + "".join(cells), flush=True)
  print(f"\nHeads of the tasks {', '.join(arguments.tasks)}.")
  print(LEGEND)
  if arguments.compile:
    print(LEGEND_COMPILED)


# Name, width, and what a row shows.
_Column = tuple[str, int, Callable[[Any], str]]


def _columns(
  dtypes: list[str], compiled: bool
) -> list[tuple[str, list[_Column]]]:
  """Columns by what stands above them."""
  short = {"float32": "f32", "bfloat16": "bf16"}

  def saved(dtype: str) -> Callable[[Any], str]:
    return lambda row: _megabytes(row.activation_bytes[dtype])

  sizes: list[_Column] = [
    ("image", 7, lambda row: _sizes(row.image_size, row.patch_size)),
    ("tokens", 7, lambda row: str(row.tokens)),
    ("pairs", 6, lambda row: "×".join(map(str, row.grid_size))),
  ]
  parameters: list[_Column] = [
    ("all", 7, lambda row: f"{row.parameters / 1e6:.2f}"),
    ("heads", 6, lambda row: f"{row.head_parameters / 1e6:.2f}"),
  ]
  operations: list[_Column] = [
    ("forward", 8, lambda row: f"{row.forward_flops / 1e9:.2f}"),
    ("train", 7, lambda row: f"{row.training_flops / 1e9:.2f}"),
  ]
  bytes_saved: list[_Column] = [
    (short[dtype], 6 if len(dtypes) > 1 else 10, saved(dtype))
    for dtype in dtypes
  ]
  ratio: list[_Column] = [
    (
      "formula",
      8,
      lambda row: f"{row.compiled_flops / row.training_flops:.4f}",
    )
  ]
  return [
    ("", sizes),
    ("parameters/M", parameters),
    ("GFLOPs/image", operations),
    ("saved/MB", bytes_saved),
    *([("XLA/", ratio)] if compiled else []),
  ]


def _megabytes(count: int) -> str:
  """Five characters up to 100 GB."""
  millions = count / 1e6
  return f"{millions:.1f}" if millions < 1000 else f"{millions:.0f}"


def _sizes(image_size: int, patch_size: int | None) -> str:
  return f"{image_size}" if patch_size is None else f"{image_size}/{patch_size}"


def _all(first: Any, rows: Iterator[Any]) -> Iterator[Any]:
  yield first
  yield from rows
