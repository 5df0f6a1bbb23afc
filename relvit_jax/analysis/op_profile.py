"""Where the time of a step goes: a trace of it, summed up by what is done."""

from __future__ import annotations

import collections
import pathlib
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.profiler import ProfileData

from relvit_jax.analysis import hlo, part

# The named scopes of the model and of the step, in the order of a table. What
# has none of these is one row more: drop-path, the sums beside each block, the
# last LayerNorm.
SCOPES = (
  "augmentation",
  "embedding",
  "attention",
  "norm",
  "mlp",
  "heads",
  "losses",
  "metrics",
  "optimizer",
)
OTHER = "other"
# Products of matrices, of many small ones, and all that is none.
KINDS = ("products", "batched products", "elementwise")

# transpose(jvp(mlp)) is the backward pass of mlp.
_WORD = re.compile(r"([\w.]+)\)*$")
# What contains others, whose time it has once more.
_CONTAINERS = ("while", "call", "conditional")


def measure(measured: part.Part, count: int) -> dict[str, Any]:
  """Traces some steps of a part.

  Args:
    measured: a part with a compiled program.
    count: of the steps.

  Returns:
    Plain data: "seconds" of a step by the clock, while it is traced, and
    "rows", of each scope and kind the "seconds" of a step, the mean of the
    devices, and its "flops", of all devices.

  Raises:
    ValueError: the device's profiler does not say what ran.
  """
  assert measured.program is not None, measured.name
  instructions = hlo.instructions(measured.program(count).as_text())
  jax.block_until_ready(measured.call(count))
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      began = time.perf_counter()
      jax.block_until_ready(measured.call(count))
      took = time.perf_counter() - began
    events = _events(pathlib.Path(folder))
  seconds: dict[tuple[str, str], float] = collections.defaultdict(float)
  flops: collections.Counter[tuple[str, str]] = collections.Counter()
  for name, lasted in events:
    found = instructions.get(name)
    if found is None or found.operation in _CONTAINERS:
      continue
    row = _scope(found.names), _kind(found)
    seconds[row] += lasted / jax.local_device_count()
    flops[row] += found.flops
  if not seconds:
    raise ValueError("the trace names no operation of the compiled program")
  return {
    "steps": count,
    "seconds": took / count,
    "rows": [
      {
        "scope": scope,
        "kind": kind,
        "seconds": seconds[scope, kind] / count,
        "flops": flops[scope, kind] / count,
      }
      for scope in (*SCOPES, OTHER)
      for kind in KINDS
      if (scope, kind) in seconds
    ],
  }


def lines(found: Mapping[str, Any], rate: float) -> Iterator[str]:
  """A table of what `measure` found.

  Args:
    found: of `measure`.
    rate: operations a second of the machine's products.
  """
  yield f"{'':28}{'ms':>9}{'of step':>9}{'of rate':>9}{'lost':>9}"
  for name, *cells in _cells(found, rate, least=0.0):
    yield f"{name:28}" + "".join(f"{cell:>9}" for cell in cells)


def markdown(found: Mapping[str, Any], rate: float) -> str:
  """The same for the README, without what takes less than a per cent."""
  rows = [
    ("", "ms", "of step", "of rate", "lost"),
    ("---",) * 5,
    *_cells(found, rate, least=0.01),
  ]
  return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(
  found: Mapping[str, Any], rate: float, least: float
) -> Iterator[tuple[str, ...]]:
  for name, seconds, flops in rows(found):
    if abs(seconds) < least * found["seconds"]:
      continue
    yield (
      name,
      f"{1e3 * seconds:.2f}",
      f"{100 * seconds / found['seconds']:.1f} %",
      f"{100 * flops / seconds / rate:.0f} %" if flops else "–",
      f"{100 * (seconds - flops / rate) / found['seconds']:.1f} %",
    )


def rows(found: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
  """(name, seconds, operations) of each row, of what is left, and of all.

  Less than nothing is left where a CPU does small operations side by side.
  """
  products = 0.0
  left = found["seconds"]
  for row in found["rows"]:
    products += row["flops"]
    left -= row["seconds"]
    yield f"{row['scope']}, {row['kind']}", row["seconds"], row["flops"]
  yield "idle, or side by side", left, 0.0
  yield "all", found["seconds"], products


def _events(folder: pathlib.Path) -> list[tuple[str, float]]:
  """(instruction, seconds) of all that ran."""
  with warnings.catch_warnings():
    # Python 3.12 warns of how XLA names a type; where warnings are errors, that
    # would end the process.
    warnings.filterwarnings("ignore", "builtin type .* has no __module__")
    # The event itself has the name of a kernel, where a GPU runs it.
    return [
      (str(stats["hlo_op"]), event.duration_ns / 1e9)
      for path in folder.rglob("*.xplane.pb")
      for plane in ProfileData.from_file(str(path)).planes
      for line in plane.lines
      for event in line.events
      if "hlo_op" in (stats := dict(event.stats))
    ]


def _scope(names: tuple[str, ...]) -> str:
  """The innermost scope of the first name that has one."""
  for name in names:
    for segment in reversed(name.split("/")):
      word = _WORD.search(segment)
      if word and word[1] in SCOPES:
        return word[1]
  return OTHER


def _kind(found: hlo.Instruction) -> str:
  if not found.flops:
    return KINDS[2]
  return KINDS[1] if found.is_batched else KINDS[0]
