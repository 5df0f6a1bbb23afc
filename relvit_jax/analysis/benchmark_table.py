"""What was measured, as text: for a person, and for the README."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from relvit_jax.analysis import op_profile

LEGEND = """\
ms       a step of the batch: the median, and the middle half of repetitions
images/s at the median
of step  the median, as a share of the bare step's
of rate  operations in matrix products, by formula, a second, as a share of the
         products that this machine was measured to do, in turn with the parts
of bound the least time in which this machine can compute the products and move
         the numbers of every kernel, over the time that was needed; what stays
         in a cache can beat it
plan     10⁶ bytes that the compiled program needs, arguments included

step          forward, backward, losses, metrics and update, many a dispatch
alone         the same, one step a dispatch
augmentation  from stored pixels to what the model sees
heads         heads, losses and metrics, forward and backward, on given tokens
optimizer     the gradient's norm, the update, and the average of the weights
feed          batches of stored pixels
end_to_end    as a run trains: feed, augmentation, step, metrics to the host"""

LEGEND_RIVALS = """\
pytorch           Hugging Face's ViT, pair heads and fused AdamW in a process of
pytorch_compiled  its own, eager or by torch.compile: the bare step, without
                  drop-path, dropout, label smoothing and metrics"""

_RIVALS = ("pytorch", "pytorch_compiled")


def table(report: Mapping[str, Any]) -> str:
  """The whole report, in at most 88 columns.

  Args:
    report: {"machine", "source", "result"}, as `relvit benchmark --json` keeps
      it.
  """
  result = report["result"]
  lines = [*_machine(report["machine"]), *_model(report), ""]
  lines.append(
    f"{'part':16}{'ms':>9} {'middle half':>17}{'images/s':>10}{'of step':>9}"
    f"{'of rate':>9}{'of bound':>9}{'plan':>8}"
  )
  for name, row in result["parts"].items():
    half = f"{_ms(row['lower_quartile'])}–{_ms(row['upper_quartile'])}"
    lines.append(
      f"{name:16}{_ms(row['median']):>9} {half:>17}"
      f"{_rate(row['images_per_second']):>10}"
      f"{_share(row.get('share_of_step')):>9}{_share(row['share_of_rate']):>9}"
      f"{_share(row['share_of_bound']):>9}{_mega(row['planned_bytes']):>8}"
    )
  lines += ["", *_notes(result), "", LEGEND]
  if result["profile"]:
    lines += ["", "where the time of a step goes, traced; lost: above the time"]
    lines += ["of its products at the rate that was measured"]
    lines += op_profile.lines(result["profile"], result["products_rate"])
  if any(name in result["parts"] for name in _RIVALS):
    lines += ["", LEGEND_RIVALS]
  return "\n".join(lines)


def markdown(reports: Sequence[Mapping[str, Any]]) -> str:
  """The README's tables, made of the reports' JSON and nothing else.

  A row a report, and where the time goes of those that were profiled.
  """
  if not reports:
    return "None has been measured yet.\n"
  head = (
    "| model | batch | device | step, ms | images/s | end to end |"
    " PyTorch, eager / compiled | of rate | of bound | augmentation | heads |"
    " optimiser |"
  )
  lines = [head, "|---|" + "---|" * (head.count("|") - 2)]
  for report in reports:
    here, result = report["machine"], report["result"]
    found, rows = result["config"], result["parts"]
    size = f"{found['image_size']}"
    if found["patch_size"] is not None:
      size += f"/{found['patch_size']}"
    rivals = " / ".join(_speed(rows.get(name)) for name in _RIVALS)
    bare = rows["step"]
    shares = (rows.get(name) for name in ("augmentation", "heads", "optimizer"))
    cells = [
      f"{found['backbone']} {size}, {result['parameters'] / 1e6:.1f} M, "
      f"{found['stage']}",
      str(found["batch_size"]),
      f"{_devices(found['devices'], here)}; {result['dtype']}; {here['date']}",
      f"{_ms(bare['median'])} ({_ms(bare['lower_quartile'])}–"
      f"{_ms(bare['upper_quartile'])})",
      _speed(bare),
      _speed(rows.get("end_to_end")),
      rivals,
      _share(bare["share_of_rate"]),
      _share(bare["share_of_bound"]),
      *(_share(row and row["share_of_step"]) for row in shares),
    ]
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n" + "".join(map(_profiled, reports))


def _speed(row: Mapping[str, Any] | None) -> str:
  return _rate(row["images_per_second"]) if row else "–"


def _profiled(report: Mapping[str, Any]) -> str:
  result = report["result"]
  if not result["profile"]:
    return ""
  table = op_profile.markdown(result["profile"], result["products_rate"])
  says = textwrap.fill(
    f"Where a step of the {result['config']['backbone']} goes on "
    f"{report['machine']['device']}, and what of it its products would not "
    "need at the measured rate:",
    80,
  )
  return f"\n{says}\n\n{table}"


def _machine(here: Mapping[str, Any]) -> list[str]:
  lines = [
    f"{_devices(here['devices'], here)}; Python {here['python']}, JAX "
    f"{here['jax']}; {here['date']}"
  ]
  for dtype, found in here["products"].items():
    slow, fast = (rate / 1e9 for rate in found["quartiles"])
    lines.append(
      f"products: {found['rate'] / 1e9:,.0f} GFLOP/s in {dtype}, of "
      f"{found['side']}×{found['side']} ({slow:,.0f}–{fast:,.0f})"
    )
  copies = here["copies"]
  slow, fast = (rate / 1e9 for rate in copies["quartiles"])
  lines.append(
    f"copies: {copies['bandwidth'] / 1e9:,.1f} GB/s, read and written "
    f"({slow:,.1f}–{fast:,.1f})"
  )
  return lines


def _devices(count: int, here: Mapping[str, Any]) -> str:
  alone = f"{here['device']}, {here['cores']} cores"
  if count == 1:
    return alone
  # It is divided, where accelerators are many.
  if here["platform"] == "cpu":
    return f"{alone} as {count} devices"
  return f"{count} × {alone}"


def _model(report: Mapping[str, Any]) -> list[str]:
  result, found = report["result"], report["result"]["config"]
  sizes = "×".join(map(str, found["patches"]))
  return [
    f"{found['stage']}: {', '.join(found['tasks'])}",
    f"{found['backbone']}: {result['parameters']:,} trained parameters, "
    f"{result['dtype']}",
    f"batches of {found['batch_size']}, {found['image_size']} pixels, {sizes} "
    f"patches, {result['flops_per_image'] / 1e9:.3g} GFLOPs an image",
    f"{found['feed']} feed of {report['source']}",
  ]


def _notes(result: Mapping[str, Any]) -> list[str]:
  compiled, peak = result["compilations"], result["peak_bytes"]
  device = peak["device"]
  slow, fast = (rate / 1e9 for rate in result["products_quartiles"])
  lines = [
    f"products, in turn with the parts: {result['products_rate'] / 1e9:,.0f} "
    f"GFLOP/s ({slow:,.0f}–{fast:,.0f})",
    f"{compiled['all']} compilations, {compiled['while_measuring']} of them "
    "while measuring",
    "peak memory with what all parts hold: process "
    f"{peak['process'] / 1e6:,.0f} MB"
    + (f", device {device / 1e6:,.0f} MB" if device else ""),
  ]
  for name in _RIVALS:
    if name in result.get("rivals", {}):
      said = result["rivals"][name]
      lines.append(
        f"{name}: PyTorch {said['torch']}, Transformers "
        f"{said['transformers']}; peak memory {said['peak_bytes'] / 1e6:,.0f} "
        "MB"
      )
  return lines


def _ms(seconds: float) -> str:
  """Three digits or more of milliseconds."""
  value = 1e3 * seconds
  return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 3}f}"


def _rate(value: float) -> str:
  return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _share(value: float | None) -> str:
  if value is None:
    return "–"
  return f"{100 * value:.{0 if value >= 1 else 1}f} %"


def _mega(count: int | None) -> str:
  return "–" if count is None else f"{count / 1e6:,.0f}"
