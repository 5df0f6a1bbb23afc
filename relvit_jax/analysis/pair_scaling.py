"""What the pair losses cost on ever larger grids, dense and block by block."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from relvit_jax.analysis.figures import COLOURS
from relvit_jax.models import heads
from relvit_jax.models.relvit import PAIR_SCORES
from relvit_jax.training import metrics, objectives, pair_blocks

NUM_PATCHES = (64, 256, 784, 1024, 4096, 16384)


class Row(NamedTuple):
  """Costs of one number of patches.

  Attributes:
    num_patches: N.
    dense_seconds, blockwise_seconds: of losses, metrics and the gradients of
      queries and keys; None where it was too large to run.
    dense_bytes, blockwise_bytes: what the compiled program takes at its peak
      beside its arguments and results.
  """

  num_patches: int
  dense_seconds: float | None
  blockwise_seconds: float | None
  dense_bytes: int
  blockwise_bytes: int


def measure(
  num_patches: Sequence[int] = NUM_PATCHES,
  *,
  batch: int = 1,
  width: int = 384,
  tasks: Sequence[str] = tuple(PAIR_SCORES),
  rows: int = pair_blocks.ROWS,
  permuted: bool = True,
  repeats: int = 3,
  limit: int = 4 * 2**30,
) -> list[Row]:
  """A row for each grid, which is as square as can be.

  Args:
    num_patches: of the grids.
    batch: images.
    width: D of the tokens that the heads project.
    tasks: of relation, distance and angle.
    rows: of a block.
    permuted: whether each image has an order of its own, so that each needs
      targets of its own.
    repeats: runs of each program, in turns, of which the median counts.
    limit: bytes; what would take more is not run.
  """
  return [
    _row(count, batch, width, tasks, rows, permuted, repeats, limit)
    for count in num_patches
  ]


def _row(
  num_patches: int,
  batch: int,
  width: int,
  tasks: Sequence[str],
  rows: int,
  permuted: bool,
  repeats: int,
  limit: int,
) -> Row:
  random = np.random.default_rng(0)
  size = _sides(num_patches)

  def drawn(count: int) -> jax.Array:
    shape = batch, num_patches, count, width // count
    return jnp.asarray(random.standard_normal(shape, np.float32))

  projected = {
    task: heads.Projections(*(drawn(PAIR_SCORES[task]) for _ in range(2)))
    for task in tasks
  }
  order = None
  if permuted:
    order = jnp.asarray(
      np.stack([random.permutation(num_patches) for _ in range(batch)])
    )
  programs: list[Any] = [
    jax.jit(_training(size, blocks)).lower(projected, order).compile()
    for blocks in (pair_blocks.DENSE, pair_blocks.PairBlocks(rows))
  ]
  dense, blockwise = (_peak(program) for program in programs)
  for place, need in enumerate((dense, blockwise)):
    if need > limit:
      programs[place] = None
  seconds = _seconds(programs, (projected, order), repeats)
  return Row(num_patches, *seconds, dense, blockwise)


def _sides(num_patches: int) -> tuple[int, int]:
  """(rows, columns) of the grid that is nearest to a square."""
  rows = math.isqrt(num_patches)
  while num_patches % rows:
    rows -= 1
  return rows, num_patches // rows


def _training(
  grid_size: tuple[int, int], blocks: pair_blocks.PairBlocks
) -> Callable[..., Any]:
  """(projections by task, order) → (gradients, metrics)."""

  def total(projected: Any, order: Any) -> tuple[jax.Array, Any]:
    outputs = projected
    if blocks.are_dense:
      outputs = {}
      for task, (query, key) in projected.items():
        scores = heads.pair_scores(query, key)
        outputs[task] = scores if task == "relation" else scores[:, 0]
    outputs = blocks.answer(outputs, grid_size, order)
    losses = objectives.losses(outputs, {}, grid_size, permutation=order)
    return losses["total"], metrics.measure(
      outputs, {}, grid_size, permutation=order
    )

  return jax.grad(total, has_aux=True)


def _peak(program: Any) -> int:
  return program.memory_analysis().temp_size_in_bytes


def _seconds(
  programs: list[Any], arguments: tuple[Any, ...], repeats: int
) -> tuple[float | None, float | None]:
  """Median of each, in turns, so that what disturbs one disturbs all."""
  taken: list[list[float]] = [[] for _ in programs]
  for turn in range(repeats + 1):
    for program, times in zip(programs, taken, strict=True):
      if program is None:
        continue
      start = time.perf_counter()
      jax.block_until_ready(program(*arguments))
      if turn:  # The first run allocates.
        times.append(time.perf_counter() - start)
  dense, blockwise = (
    statistics.median(times) if times else None for times in taken
  )
  return dense, blockwise


def table(measured: Sequence[Row]) -> str:
  """The rows as text."""
  lines = [
    f"{'':8}{'dense':>24}{'block by block':>24}",
    f"{'patches':8}" + 2 * f"{'ms':>12}{'MB':>12}",
  ]
  for number, *cells in map(_cells, measured):
    lines.append(f"{number:8}" + "".join(f"{cell:>12}" for cell in cells))
  return "\n".join(lines)


def markdown(measured: Sequence[Row]) -> str:
  """The same for the README."""
  names = "patches", "dense, ms", "MB", "block by block, ms", "MB"
  rows = [names, ("---",) * 5, *map(_cells, measured)]
  return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(row: Row) -> tuple[str, ...]:
  def ms(seconds: float | None) -> str:
    return "too large" if seconds is None else f"{1e3 * seconds:,.1f}"

  return (
    f"{row.num_patches:,}",
    ms(row.dense_seconds),
    f"{row.dense_bytes / 1e6:,.1f}",
    ms(row.blockwise_seconds),
    f"{row.blockwise_bytes / 1e6:,.1f}",
  )


def figure(measured: Sequence[Row], title: str = "") -> Figure:
  """Seconds and bytes against the number of patches, on logarithmic axes.

  Args:
    measured: as of `measure`.
    title: what was measured, and where.
  """
  result = Figure(figsize=(10.4, 4.2), layout="constrained")
  time_axes, memory_axes = result.subplots(1, 2)
  counts = [row.num_patches for row in measured]
  # Those of square grids whose side doubles.
  ticks = [4**i for i in range(1, 12) if min(counts) <= 4**i <= max(counts)]
  for axes, unit, scale in (
    (time_axes, "seconds", 1.0),
    (memory_axes, "bytes", 2.0**-20),
  ):
    for name, colour, marker in (
      ("dense", COLOURS[1], "s"),
      ("blockwise", COLOURS[0], "o"),
    ):
      values = [getattr(row, f"{name}_{unit}") for row in measured]
      known = [
        (count, value * scale)
        for count, value in zip(counts, values, strict=True)
        if value
      ]
      axes.plot(
        *zip(*known, strict=True), color=colour, marker=marker, label=name
      )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.set_xlabel("patches N")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
  time_axes.set_ylabel("seconds")
  time_axes.set_title("Time of losses, metrics and gradients", fontsize=10)
  memory_axes.set_ylabel("MiB")
  memory_axes.set_title("Peak memory of the compiled program", fontsize=10)
  if title:
    result.suptitle(title, fontsize=11)
  return result
