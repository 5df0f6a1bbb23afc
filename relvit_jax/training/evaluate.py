"""Metrics of a model on a whole split, each example counted once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from relvit_jax.data import feed
from relvit_jax.training import objectives, partitioning, step

Evaluate = Callable[
  [step.Params, step.Params, Iterable[feed.Batch]], dict[str, float]
]


def make_evaluate(
  structure: Any,
  normalise: Callable[[Array], Array],
  grid_size: tuple[int, int],
  mesh: Mesh,
) -> Evaluate:
  """(params, fixed, batches) → metrics, compiled once for all splits.

  `batches` are those of `feed.evaluation_batches`. Patches are shown in
  order, and nothing is dropped out.
  """

  def evaluate_batch(
    params: step.Params, fixed: step.Params, batch: feed.Batch
  ) -> objectives.Metrics:
    outputs = step.merge_model(structure, params, fixed)(
      normalise(batch["image"])
    )
    return objectives.metrics(
      outputs, {"label": batch["label"]}, grid_size, mask=batch["mask"]
    )

  compiled = jax.jit(
    evaluate_batch, out_shardings=partitioning.replicated(mesh)
  )
  sharding = partitioning.batch_sharding(mesh)

  def evaluate(
    params: step.Params, fixed: step.Params, batches: Iterable[feed.Batch]
  ) -> dict[str, float]:
    return summarise(
      compiled(params, fixed, jax.device_put(batch, sharding))
      for batch in batches
    )

  return evaluate


def summarise(batches: Iterable[objectives.Metrics]) -> dict[str, float]:
  """Sums and counts of many batches → one number a metric, in float64.

  Raises:
    ValueError: there is nothing to count.
  """
  totals: dict[str, np.ndarray] = {}
  # All batches are dispatched before the first is waited for.
  for metrics in jax.device_get(list(batches)):
    for name, (value, count) in metrics.items():
      # A leaf is a scalar, or one number a step of a block.
      pair = np.array([np.sum(value, dtype=float), np.sum(count, dtype=float)])
      totals[name] = totals.get(name, 0) + pair
  if not totals:
    raise ValueError("there are no batches to evaluate")
  return {name: float(value / count) for name, (value, count) in totals.items()}
