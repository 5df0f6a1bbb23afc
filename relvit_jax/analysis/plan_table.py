"""A plan for people: on a terminal, and as rows of the README."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_WORDS = {
  "products": "products",
  "memory": "main memory",
  "exchange": "exchange",
}
_HELD = {
  "parameters": "parameters",
  "optimizer": "optimiser",
  "average": "average of the weights",
  "fixed": "fixed arrays",
  "data": "images",
  "padding": "their padding",
  "activations": "activations",
  "code": "program",
}
NOTE = """\
The least time is the largest of the three, each at the published rate of the
chip, all its links in the slice at work at once. A real step takes longer, most
of all where a chip has few images; what evaluation, checkpoints and start-up
take comes on top."""


def lines(plan: Mapping[str, Any]) -> list[str]:
  """A plan in lines, of `plan.Planned.report`."""
  mesh = plan["mesh"]
  images = plan["batch_size"] / plan["chips"]
  return [
    f"{plan['config']} on {plan['topology']}: {_some(plan['chips'], 'chip')}, "
    f"{_some(plan['hosts'], 'host')}, mesh {mesh['data']} × {mesh['fsdp']} "
    f"(data × fsdp); {_some(plan['batch_size'], 'image')} a step, {images:g} a "
    "chip",
    f"{plan['feed']}; {_some(plan['steps_per_dispatch'], 'step')} a dispatch",
    "",
    *_memory(plan),
    "",
    *_step(plan),
    "",
    *_run(plan),
    "",
    *NOTE.splitlines(),
  ]


def _memory(plan: Mapping[str, Any]) -> Iterable[str]:
  held, whole = plan["memory"], plan["chip"]["memory"]
  yield "memory of a chip            MB"
  for key, words in _HELD.items():
    if held[key]:
      count = f"   {plan['parameters']:,}" if key == "parameters" else ""
      yield f"  {words:<22}{held[key] / 1e6:>8,.1f}{count}"
  yield (
    f"  {'all at the peak':<22}{held['peak'] / 1e6:>8,.1f}   "
    f"{held['peak'] / whole:.1%} of {whole / 2**30:.2f} GiB"
  )


def _step(plan: Mapping[str, Any]) -> Iterable[str]:
  seconds, chip = plan["seconds"], plan["chip"]
  amounts = {
    "products": f"{plan['flops'] / 1e9:,.2f} GFLOP",
    "memory": f"{plan['main_memory_bytes'] / 1e6:,.1f} MB",
    "exchange": f"{plan['sent_bytes'] / 1e6:,.1f} MB",
  }
  rates = {
    "products": f"{chip['flops'] / 1e12:,.0f} TFLOP/s",
    "memory": f"{chip['bandwidth'] / 1e9:,.0f} GB/s",
    "exchange": f"{plan['links'] / 1e9:,.0f} GB/s",
  }
  yield "a step of a chip          amount    at the rate of    least ms"
  for key, words in _WORDS.items():
    mark = "   ← the bound" if key == plan["bound"] else ""
    yield (
      f"  {words:<14}{amounts[key]:>16}{rates[key]:>18}"
      f"{seconds[key] * 1e3:>12.3f}{mark}"
    )
  yield (
    f"  kernels read and write {plan['kernel_bytes'] / 1e6:,.1f} MB, in main "
    "memory and the core's own"
  )
  for line in exchanges(plan["collectives"]):
    yield f"  {line}"
  if plan["unknown_loops"]:
    yield (
      f"  {_some(plan['unknown_loops'], 'loop')} of unknown length counted once"
    )
  if "seconds" in plan["compiler"]:
    yield f"  the compiler expects {plan['compiler']['seconds'] * 1e3:.3f} ms"


def exchanges(collectives: Sequence[Mapping[str, Any]]) -> list[str]:
  """The collectives in words, those of a kind together."""
  sums: dict[Any, collections.Counter[str]] = {}
  for one in collectives:
    key = one["in_step"], one["kind"], one["devices"]
    total = sums.setdefault(key, collections.Counter())
    total["times"] += one["times"]
    total["size"] += one["times"] * one["size"]
    total["elements"] += one["times"] * one["elements"]
  return [
    f"{'a step' if in_step else 'a dispatch'}: {total['times']} × {kind}"
    f"{f' of {devices} chips' if devices else ''}, {total['elements']:,} "
    f"numbers, {total['size'] / 1e6:,.3g} MB"
    for (in_step, kind, devices), total in sums.items()
  ]


def _run(plan: Mapping[str, Any]) -> Iterable[str]:
  step, steps = plan["seconds"]["step"], plan["steps"]
  yield (
    f"at least {duration(step)} a step, {plan['batch_size'] / step:,.0f} "
    f"images/s: {duration(steps['epoch'] * step)} for an epoch of "
    f"{steps['epoch']:,} steps, {duration(steps['run'] * step)} for the run of "
    f"{steps['run']:,}"
  )
  if not plan["is_resident"]:
    each = plan["batch_size"] / step / plan["hosts"]
    yield (
      f"the feed must keep up: a host would have to decode {each:,.0f} images/s"
    )


def duration(seconds: float | int) -> str:
  """A few digits of it."""
  for unit, size in (("h", 3600), ("min", 60)):
    if seconds >= 2 * size:
      return f"{seconds / size:.3g} {unit}"
  for unit, size in (("s", 1), ("ms", 1e-3)):
    if seconds >= size:
      return f"{seconds / size:.3g} {unit}"
  return f"{seconds * 1e6:.3g} µs"


def _some(number: int, what: str) -> str:
  return f"{number:,} {what}{'' if number == 1 else 's'}"


SWEEP_HEADER = "batch_size  mesh.fsdp  peak MB  least ms    images/s  bound"


def sweep_line(row: Mapping[str, Any]) -> str:
  """A row of `plan_search.sweep`."""
  start = f"{row['batch_size']:>10,}{row['fsdp']:>11}"
  if "plan" not in row:
    return f"{start}  {row['refused']}"
  plan = row["plan"]
  step = plan["seconds"]["step"]
  return (
    f"{start}{plan['memory']['peak'] / 1e6:>9,.0f}{step * 1e3:>10.3f}"
    f"{row['batch_size'] / step:>12,.0f}  {_WORDS[plan['bound']]}"
  )


_COLUMNS = (
  "config",
  "slice",
  "batch, a chip",
  "parameters and optimiser, MB",
  "peak, MB",
  "GFLOP",
  "main memory, MB",
  "exchange, MB",
  "at least, a step",
  "bound by",
  "an epoch",
  "the run",
)


def markdown(plans: Iterable[Mapping[str, Any]]) -> str:
  """A table, a row for each plan."""
  rows = [_COLUMNS, ("---",) * len(_COLUMNS)]
  for plan in plans:
    held, step = plan["memory"], plan["seconds"]["step"]
    rows.append(
      (
        plan["config"],
        plan["topology"],
        f"{plan['batch_size']:,}, {plan['batch_size'] / plan['chips']:g}",
        f"{(held['parameters'] + held['optimizer']) / 1e6:,.0f}",
        f"{held['peak'] / 1e6:,.0f}",
        f"{plan['flops'] / 1e9:,.1f}",
        f"{plan['main_memory_bytes'] / 1e6:,.0f}",
        f"{plan['sent_bytes'] / 1e6:,.0f}",
        duration(step),
        _WORDS[plan["bound"]],
        duration(plan["steps"]["epoch"] * step),
        duration(plan["steps"]["run"] * step),
      )
    )
  return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
