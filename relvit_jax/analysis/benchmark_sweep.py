"""What a step costs against batch, patches and depth: measured, and drawn."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from relvit_jax import config_checks
from relvit_jax.analysis import benchmark, figures, machine, parts, timing
from relvit_jax.analysis.needs import Needs
from relvit_jax.analysis.part import Part
from relvit_jax.data import feed
from relvit_jax.models import variants
from relvit_jax.training import stage as stages

# What is varied, and how many times as much of it.
LABELS = {
  "batch": "images a step",
  "patches": "patches an image",
  "depth": "blocks",
}
_FACTORS = (0.25, 0.5, 1, 2)
_COLOUR, _BOUND = figures.COLOURS[:2]


def points(config: Any, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
  """(value, keys to set) of each point; maybe not all can be.

  Patches are made smaller or larger in images that stay, so that as many
  pixels become more or fewer tokens.

  Raises:
    ValueError: the backbone has no such size, or several.
  """
  model = config.model
  if what == "batch":
    for factor in _FACTORS:
      batch = round(factor * config.batch_size)
      yield batch, {"batch_size": batch}
  elif what == "depth":
    depth = model.depth or variants.sizes_of(model.backbone)["depth"]
    if not isinstance(depth, int):
      raise ValueError(
        f"model.depth={depth} has a number for each stage: --sweep depth needs "
        "a backbone with one, a vit or t2t_vit"
      )
    for value in dict.fromkeys(max(1, round(f * depth)) for f in _FACTORS):
      yield value, {"model.depth": value}
  else:
    if variants.family_of(model.backbone) != "vit":
      raise ValueError(
        f"model.backbone={model.backbone!r}: --sweep patches needs a vit, "
        "whose patches may have any size"
      )
    for factor in _FACTORS:
      # Half the side makes four times as many.
      patch = round(model.patch_size / factor)
      if patch:
        side = config.data.image_size // patch
        yield side**2, {"model.patch_size": patch}


def measure(
  config: Any,
  examples: feed.Examples,
  mesh: Mesh,
  colours: tuple[Any, Any],
  here: Mapping[str, Any],
  what: str,
  seconds: float | int,
) -> dict[str, Any]:
  """Times the bare step at every point, all points in turn.

  Returns:
    "points", each with its "value", seconds an image, the least that the
    machine could take, and the bytes that the program needs; and "left_out",
    a line for each that cannot be.
  """
  made: dict[int, tuple[Part, Needs]] = {}
  left_out = []
  for value, keys in points(config, what):
    changed = copy.deepcopy(config)
    changed.update_from_flattened_dict(keys)
    try:
      config_checks.check(changed)
      stage = stages.Stage(changed, examples, mesh, colours)
    except ValueError as error:
      left_out.append(f"{LABELS[what]} {value}: {error}")
      continue
    part = parts.Parts(stage).make("step")
    made[value] = part._replace(name=str(value)), Needs(stage)
  clocks, counts = benchmark.clocks_of(
    [part for part, _ in made.values()], seconds
  )
  found = timing.interleaved(clocks, seconds) if clocks else {}
  machines = machine.count(mesh.devices.flat)
  result = []
  for value, (part, needs) in sorted(made.items()):
    rate = here["products"][needs.dtype.name]["rate"] * machines
    bandwidth = here["copies"]["bandwidth"] * machines
    one = found[part.name] / (counts[part.name] * needs.batch)
    least = needs.seconds("step", rate, bandwidth) / needs.batch
    result.append(
      {
        "value": value,
        "seconds_per_image": one.as_json(),
        "bound_seconds_per_image": least,
        "planned_bytes": part.planned_bytes,
      }
    )
  return {"points": result, "left_out": left_out}


def lines(sweeps: Mapping[str, Any]) -> Iterator[str]:
  """The points as text."""
  for what, sweep in sweeps.items():
    yield f"{LABELS[what]:>18}{'µs/image':>12}{'bound':>10}{'plan/MB':>10}"
    for point in sweep["points"]:
      median = 1e6 * point["seconds_per_image"]["median"]
      least = 1e6 * point["bound_seconds_per_image"]
      yield (
        f"{point['value']:>18,}{median:>12,.0f}{least:>10,.0f}"
        f"{point['planned_bytes'] / 1e6:>10,.0f}"
      )
    yield from (f"left out: {line}" for line in sweep["left_out"])
    yield ""


def figure(sweeps: Mapping[str, Any]) -> Figure:
  """Microseconds an image above, bytes of the program below, by what varies.

  Points are measured, with bars over the middle half of the repetitions; the
  dashed line is what the machine would need at least. All axes are logarithmic.
  """
  drawn = {what: sweep for what, sweep in sweeps.items() if sweep["points"]}
  if not drawn:
    raise ValueError("no point was measured: there is nothing to draw")
  result = Figure(figsize=(3.6 * len(drawn) + 0.8, 6.0), layout="constrained")
  rows = result.subplots(
    2, len(drawn), squeeze=False, sharex="col", sharey="row"
  )
  for column, (what, sweep) in enumerate(drawn.items()):
    values = [point["value"] for point in sweep["points"]]
    _time(rows[0, column], values, sweep["points"])
    needed = [point["planned_bytes"] / 1e6 for point in sweep["points"]]
    rows[1, column].plot(values, needed, "o-", color=_COLOUR, markersize=4)
    rows[1, column].set_xlabel(LABELS[what])
    for axes in rows[:, column]:
      _logarithmic(axes, values)
  first = next(iter(drawn.values()))["points"]
  _named(rows[0, 0], [point["value"] for point in first], first)
  rows[0, 0].set_ylabel("µs an image")
  rows[1, 0].set_ylabel("MB that the program needs")
  return result


def _time(
  axes: Axes, values: Sequence[int], measured: Sequence[Mapping[str, Any]]
) -> None:
  times = [point["seconds_per_image"] for point in measured]
  middle = [1e6 * one["median"] for one in times]
  below = [1e6 * (one["median"] - one["lower_quartile"]) for one in times]
  above = [1e6 * (one["upper_quartile"] - one["median"]) for one in times]
  least = [1e6 * point["bound_seconds_per_image"] for point in measured]
  axes.errorbar(
    values,
    middle,
    yerr=(below, above),
    fmt="o-",
    color=_COLOUR,
    capsize=3,
    markersize=4,
  )
  axes.plot(values, least, "--", color=_BOUND)


def _named(
  axes: Axes, values: Sequence[int], measured: Sequence[Mapping[str, Any]]
) -> None:
  """What the two lines are, between the first two points, above the bars."""
  pair = measured[:2]
  middle = math.prod(values[:2]) ** (1 / len(pair))
  for text, colour, heights in (
    (
      "measured",
      _COLOUR,
      [point["seconds_per_image"]["upper_quartile"] for point in pair],
    ),
    ("bound", _BOUND, [point["bound_seconds_per_image"] for point in pair]),
  ):
    axes.annotate(
      text,
      (middle, 1e6 * max(heights)),
      xytext=(0, 4),
      textcoords="offset points",
      ha="center",
      va="bottom",
      fontsize=9,
      color=colour,
    )


def _logarithmic(axes: Axes, values: Sequence[int]) -> None:
  axes.set_xscale("log")
  axes.set_yscale("log")
  axes.set_xticks(values, [f"{value:,}" for value in values])
  axes.xaxis.set_minor_locator(NullLocator())
  plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
  axes.yaxis.set_major_formatter(plain)
  axes.yaxis.set_minor_formatter(
    FuncFormatter(
      lambda value, _: f"{value:,.10g}" if f"{value:e}"[0] in "25" else ""
    )
  )
  axes.tick_params(which="both", labelsize=8)
  axes.grid(True, which="major", alpha=0.25, linewidth=0.6)
  axes.spines[["top", "right"]].set_visible(False)
