"""Metrics of a model on a whole split, each example counted once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import Array

from relvit_jax.data import feed
from relvit_jax.training import metrics, partitioning, step

Evaluate = Callable[
  [step.Params, step.Params, Iterable[feed.Batch]], dict[str, float]
]


def make_evaluate(
  graphdef: Any,
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
  ) -> metrics.Metrics:
    outputs = step.merge_model(graphdef, params, fixed)(
      normalise(batch["image"])
    )
    return metrics.measure(
      outputs, {"label": batch["label"]}, grid_size, mask=batch["mask"]
    )

  compiled = jax.jit(
    evaluate_batch, out_shardings=partitioning.replicated(mesh)
  )
  sharding = partitioning.batch_sharding(mesh)

  def evaluate(
    params: step.Params, fixed: step.Params, batches: Iterable[feed.Batch]
  ) -> dict[str, float]:
    return metrics.means(
      compiled(params, fixed, jax.device_put(batch, sharding))
      for batch in batches
    )

  return evaluate
