"""Metrics that tell a person something, and what chance would score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped
from numpy.typing import ArrayLike

from relvit_jax import grid
from relvit_jax.models.relvit import PAIR_SCORES
from relvit_jax.training import localisation as localisations
from relvit_jax.training import objectives, pair_blocks, pair_tasks

# A metric is a sum and a count, so that batches, devices and hosts add up;
# arrays on the device or, once fetched, on the host.
Metrics = dict[str, tuple[Any, Any]]


@jax.named_scope("metrics")
def measure(
  outputs: Mapping[str, Any],
  labels: Mapping[str, ArrayLike],
  grid_size: Sequence[int],
  *,
  permutation: ArrayLike | None = None,
  pairs: localisations.Pairs | None = None,
  localisation: localisations.Localisation | None = None,
  mask: Bool[Any, " B"] | None = None,
) -> Metrics:
  """Accuracies and errors as sums and counts of images.

  relation_accuracy, position_accuracy, label_top1 and label_top5 are shares;
  distance_error is the mean error in patches, angle_error in the scaled unit
  of `grid.angles`, whose range is 2; drloc_error is in patches too. Compare
  with `chance`. Of a mixed image the label is that of the larger share.

  Args:
    outputs, labels, grid_size, permutation, pairs, localisation: as of
      `objectives.losses`.
    mask: false for the padding of a last batch, which then does not count.
  """
  outputs, wanted = objectives.prepare(
    outputs, labels, grid_size, permutation, pairs
  )
  per_image = {}
  for task, output in outputs.items():
    if isinstance(output, pair_blocks.Answered):
      per_image |= _of_pairs(task, output.score, grid_size)
      continue
    target = wanted[task]
    if task in PAIR_SCORES:
      score = jnp.mean(pair_tasks.scores(task, output, target), axis=(1, 2))
      per_image |= _of_pairs(task, score, grid_size)
    elif task == "position":
      hit = jnp.argmax(output, axis=-1) == target
      per_image["position_accuracy"] = jnp.mean(hit, axis=1)
    elif task == "drloc":
      asked = localisation or localisations.Localisation()
      errors = asked.errors(output, target, grid_size)
      per_image["drloc_error"] = jnp.mean(errors, axis=1)
    elif task == "label":
      if target.ndim == 2:
        unknown = jnp.isnan(target).any(axis=1)
        target = jnp.where(unknown, -1, jnp.argmax(target, axis=1))
      # Strictly below the label's score: a tie, a NaN or a label that is no
      # class earns nothing.
      score = jnp.take_along_axis(
        output, target[:, None], axis=-1, mode="fill", fill_value=jnp.nan
      )
      score = jnp.where(target[:, None] < 0, jnp.nan, score)
      not_beaten = jnp.sum(~(output < score), axis=-1)  # Itself among them.
      known = ~jnp.isnan(score[:, 0])
      per_image["label_top1"] = known & (not_beaten <= 1)
      per_image["label_top5"] = known & (not_beaten <= 5)
  return {name: _counted(value, mask) for name, value in per_image.items()}


def of_losses(losses: Mapping[str, Any], num_images: Any) -> Metrics:
  """Mean losses of so many images, as the metrics `loss_<task>`."""
  count = jnp.asarray(num_images, jnp.float32)
  return {
    f"loss_{task}": (value * count, count) for task, value in losses.items()
  }


def means(batches: Iterable[Metrics]) -> dict[str, float]:
  """Sums and counts of many batches → one number a metric, in float64.

  Raises:
    ValueError: there is nothing to count.
  """
  totals: dict[str, np.ndarray] = {}

  def add(metrics: Metrics) -> None:
    for name, (value, count) in jax.device_get(metrics).items():
      # A leaf is a scalar, or one number for each step of a dispatch.
      pair = np.array([np.sum(value, dtype=float), np.sum(count, dtype=float)])
      totals[name] = totals.get(name, 0) + pair

  # One batch late, so that the device always has its next one.
  waiting = None
  for metrics in batches:
    if waiting is not None:
      add(waiting)
    waiting = metrics
  if waiting is not None:
    add(waiting)
  if not totals:
    raise ValueError("there are no batches to evaluate")
  return {name: float(value / count) for name, (value, count) in totals.items()}


def chance(
  tasks: Iterable[str],
  grid_size: Sequence[int],
  num_classes: int | None = None,
  localisation: localisations.Localisation | None = None,
) -> dict[str, float]:
  """What the best answer that looks at nothing scores in each metric.

  The most frequent relation, one place for all patches, the median distance
  and angle; 19.1 % for the relations of 8×8 patches.
  """
  result = {}
  for task in tasks:
    if task == "relation":
      counts = np.bincount(grid.relations(*grid_size).ravel())
      result["relation_accuracy"] = float(counts.max() / counts.sum())
    elif task == "position":
      result["position_accuracy"] = 1 / (grid_size[0] * grid_size[1])
    elif task == "label":
      if not num_classes:
        raise ValueError(f"num_classes={num_classes}: the label task needs it")
      result["label_top1"] = 1 / num_classes
      result["label_top5"] = min(1.0, 5 / num_classes)
    elif task == "drloc":
      asked = localisation or localisations.Localisation()
      result["drloc_error"] = asked.chance(grid_size)
    else:
      table = {"distance": grid.distances, "angle": grid.angles}[task]
      values = table(*grid_size)
      error = float(np.abs(values - np.median(values)).mean())
      scale = _patches_per_unit(grid_size) if task == "distance" else 1
      result[f"{task}_error"] = error * float(scale)
  return result


def _of_pairs(
  task: str, score: Float[Array, " B"], grid_size: Sequence[int]
) -> dict[str, Array]:
  """The metric of a pair task by its name and in its unit."""
  if task == "relation":
    return {"relation_accuracy": score}
  unit = _patches_per_unit(grid_size) if task == "distance" else 1
  return {f"{task}_error": score * unit}


def _patches_per_unit(grid_size: Sequence[int]) -> float:
  """Patches in a unit of the scaled distance, whose range is 2."""
  height, width = grid_size
  return float(grid.max_distance((height, width))) / 2


def _counted(
  per_image: Shaped[Array, " B"], mask: Bool[Any, " B"] | None
) -> tuple[Array, Array]:
  values = per_image.astype(jnp.float32)
  if mask is None:
    mask = jnp.ones(values.shape, bool)
  keep = jnp.asarray(mask, jnp.float32)
  return jnp.sum(values * keep), jnp.sum(keep)
