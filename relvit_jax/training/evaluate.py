"""Metrics of a model on a whole split, each example counted once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array

from relvit_jax.data import feed
from relvit_jax.training import localisation as localisations
from relvit_jax.training import (
  metrics,
  model_arrays,
  pair_blocks,
  partitioning,
  step,
)

Evaluate = Callable[
  [model_arrays.Params, model_arrays.Params, Iterable[feed.Batch]],
  dict[str, float],
]


def make_evaluate(
  graphdef: Any,
  objective: step.Objective,
  view: Callable[[feed.Batch], Array],
  grid_size: tuple[int, int],
  mesh: Mesh,
  localisation: localisations.Localisation | None = None,
  blocks: pair_blocks.PairBlocks = pair_blocks.DENSE,
) -> Evaluate:
  """(params, fixed, batches) → metrics, compiled once for all splits.

  `batches` are those of `evaluation_feed.batches` on the mesh, which `view`
  shows to the model. Patches are shown in order, and nothing is dropped out. A
  drloc head is asked about the same pairs of every image. `blocks` says how the
  pair tasks are judged.
  The metrics are those of `metrics.measure` and `loss_<task>`, `loss_total`.
  """

  def evaluate_batch(
    params: model_arrays.Params, fixed: model_arrays.Params, batch: feed.Batch
  ) -> metrics.Metrics:
    images, pairs = view(batch), None
    if localisation:
      pairs = localisation.same(len(images), grid_size)
    model = model_arrays.merge_model(graphdef, params, fixed)
    outputs = model(images, pairs=pairs, dense=blocks.are_dense)
    outputs = blocks.answer(outputs, grid_size)
    labels, mask = {"label": batch["label"]}, batch["mask"]
    measured = metrics.measure(
      outputs,
      labels,
      grid_size,
      pairs=pairs,
      localisation=localisation,
      mask=mask,
    )
    losses = objective(outputs, labels, pairs=pairs, mask=mask)
    return measured | metrics.of_losses(losses, jnp.sum(mask))

  compiled = jax.jit(
    partitioning.on_mesh(evaluate_batch, mesh),
    out_shardings=partitioning.replicated(mesh),
  )

  def evaluate(
    params: model_arrays.Params,
    fixed: model_arrays.Params,
    batches: Iterable[feed.Batch],
  ) -> dict[str, float]:
    return metrics.means(compiled(params, fixed, batch) for batch in batches)

  return evaluate
