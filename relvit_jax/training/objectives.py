"""One loss a task, their weighted sum, and metrics that tell something.

The targets of the pair and position tasks are not data: they follow from the
grid and from the order in which an image shows its patches, and are made here
from the patches' coordinates.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from relvit_jax import grid

# A metric is a sum and a count, so that batches, devices and hosts add up;
# arrays on the device or, once fetched, on the host.
Metrics = dict[str, tuple[Any, Any]]


def targets(
  tasks: Iterable[str],
  grid_size: tuple[int, int],
  permutation: Int[Any, "B N"] | None = None,
) -> dict[str, Array]:
  """What the self-supervised tasks among `tasks` ask for.

  Args:
    tasks: names; label, which is no question of geometry, is passed over.
    grid_size: (rows, columns) of patches.
    permutation: the patch that image b shows at place i; None for images left
      in order, whose targets are constants.

  Returns:
    relation, distance and angle [B,N,N] and position [B,N]; B is 1 where there
    is no permutation, as all images then share the same constants.
  """
  if permutation is None:
    tables = {
      "relation": grid.relations,
      "distance": grid.distances,
      "angle": grid.angles,
      "position": grid.positions,
    }
    return {
      task: jnp.asarray(tables[task](*grid_size))[None]
      for task in tasks
      if task in tables
    }
  shown = jnp.asarray(grid.coordinates(*grid_size))[permutation]  # [B, N, 2]
  derive = {
    "relation": lambda: grid.pair_relations(shown),
    "distance": lambda: grid.pair_distances(shown, grid_size),
    "angle": lambda: grid.pair_angles(shown, grid_size),
    "position": lambda: jnp.asarray(permutation),
  }
  return {task: derive[task]() for task in tasks if task in derive}


def losses(
  outputs: Mapping[str, Array],
  labels: Mapping[str, Int[Any, " B"]],
  grid_size: tuple[int, int],
  *,
  weights: Mapping[str, float] | None = None,
  permutation: Int[Any, "B N"] | None = None,
  label_smoothing: float = 0.0,
  relation_smoothing: float = 0.0,
  relation_dropout: float = 0.0,
  key: Array | None = None,
) -> dict[str, Float[Array, ""]]:
  """The loss of every output, and their sum.

  Relation, position and label are cross entropies, distance and angle mean
  squared errors, each a mean over images and pairs or patches; all N² ordered
  pairs count, a patch with itself included.

  Args:
    outputs: what the model returned, [B, ...] by task.
    labels: {"label": [B]} where the label task is among the outputs.
    grid_size: (rows, columns) of patches.
    weights: what a task's loss counts in the total, 1 where not given.
    permutation: the patch that image b shows at place i.
    label_smoothing: share of the label's target spread over all classes.
    relation_smoothing: the same for the relations.
    relation_dropout: chance of a pair to be left out of the relation loss, so
      that not every pair of an image answers for it. Drawn from `key`.
    key: a JAX random key, needed by relation_dropout.

  Returns:
    One scalar per output, unweighted, and "total".
  """
  outputs = {task: jnp.asarray(output) for task, output in outputs.items()}
  wanted = _with_labels(outputs, labels, grid_size, permutation)
  result = {}
  for task, output in outputs.items():
    if task == "relation":
      result[task] = _relation_loss(
        output, wanted[task], relation_smoothing, relation_dropout, key
      )
    elif task == "position":
      result[task] = jnp.mean(_cross_entropy(output, wanted[task], -1))
    elif task == "label":
      entropy = _cross_entropy(output, wanted[task], -1, label_smoothing)
      result[task] = jnp.mean(entropy)
    else:
      result[task] = jnp.mean(jnp.square(output - wanted[task]))
  weights = weights or {}
  _check_weights(weights, outputs)
  result["total"] = functools.reduce(
    jnp.add, [loss * weights.get(task, 1.0) for task, loss in result.items()]
  )
  return result


def metrics(
  outputs: Mapping[str, Array],
  labels: Mapping[str, Int[Any, " B"]],
  grid_size: tuple[int, int],
  *,
  permutation: Int[Any, "B N"] | None = None,
  mask: Bool[Any, " B"] | None = None,
) -> Metrics:
  """Accuracies and errors as sums and counts of images.

  relation_accuracy, position_accuracy, label_top1 and label_top5 are shares;
  distance_error is the mean error in patches, angle_error in the scaled unit
  of `grid.angles`, whose range is 2. Compare with `chance`.

  Args:
    mask: false for the padding of a last batch, which then does not count.
  """
  outputs = {task: jnp.asarray(output) for task, output in outputs.items()}
  wanted = _with_labels(outputs, labels, grid_size, permutation)
  per_image = {}
  for task, output in outputs.items():
    target = wanted[task]
    if task == "relation":
      hit = jnp.argmax(output, axis=1) == target
      per_image["relation_accuracy"] = jnp.mean(hit, axis=(1, 2))
    elif task == "position":
      hit = jnp.argmax(output, axis=-1) == target
      per_image["position_accuracy"] = jnp.mean(hit, axis=1)
    elif task == "label":
      # Strictly below the label's score: a tie or a NaN earns nothing.
      beaten = jnp.sum(output < _pick(output, target), axis=-1)
      num_classes = output.shape[-1]
      per_image["label_top1"] = beaten >= num_classes - 1
      per_image["label_top5"] = beaten >= num_classes - 5
    else:
      error = jnp.mean(jnp.abs(output - target), axis=(1, 2))
      if task == "distance":
        # From the scaled unit, whose range is 2, to patches.
        error = error * (grid.max_distance(grid_size) / 2)
      per_image[f"{task}_error"] = error
  return {name: _counted(value, mask) for name, value in per_image.items()}


def chance(
  tasks: Iterable[str],
  grid_size: tuple[int, int],
  num_classes: int | None = None,
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
      assert num_classes is not None
      result["label_top1"] = 1 / num_classes
      result["label_top5"] = min(1.0, 5 / num_classes)
    else:
      table = {"distance": grid.distances, "angle": grid.angles}[task]
      values = table(*grid_size)
      error = float(np.abs(values - np.median(values)).mean())
      scale = grid.max_distance(grid_size) / 2 if task == "distance" else 1
      result[f"{task}_error"] = error * float(scale)
  return result


def _with_labels(
  outputs: Mapping[str, Array],
  labels: Mapping[str, Any],
  grid_size: tuple[int, int],
  permutation: Any,
) -> dict[str, Array]:
  wanted = targets(outputs, grid_size, permutation)
  if "label" in outputs:
    if "label" not in labels:
      raise ValueError(
        f"the outputs include label, but labels has only {sorted(labels)}"
      )
    wanted["label"] = jnp.asarray(labels["label"])
  return wanted


def _relation_loss(
  scores: Float[Array, "B R N N"],
  target: Int[Array, "*B N N"],
  smoothing: float,
  dropout: float,
  key: Array | None,
) -> Float[Array, ""]:
  entropy = _cross_entropy(scores, target, 1, smoothing)  # [B, N, N]
  if dropout == 0:
    return jnp.mean(entropy)
  if key is None or not 0 < dropout < 1:
    raise ValueError(
      f"relation_dropout={dropout} must be in [0, 1) and needs a key"
    )
  kept = jax.random.bernoulli(key, 1 - dropout, entropy.shape)
  return jnp.sum(entropy * kept) / jnp.maximum(jnp.sum(kept), 1)


def _cross_entropy(
  scores: Float[Array, "*S"],
  target: Int[Array, "*T"],
  axis: int,
  smoothing: float = 0.0,
) -> Float[Array, "*P"]:
  """-log p(target), with `smoothing` of the target spread over all classes."""
  log_p = jax.nn.log_softmax(scores, axis=axis)
  chosen = -jnp.squeeze(_pick(log_p, target, axis), axis)
  if smoothing == 0:
    return chosen
  return (1 - smoothing) * chosen - smoothing * jnp.mean(log_p, axis=axis)


def _pick(
  scores: Float[Array, "*S"], target: Int[Array, "*T"], axis: int = -1
) -> Float[Array, "*P"]:
  """The scores of the target class, with the class axis kept."""
  classes = jax.lax.broadcasted_iota(
    target.dtype, scores.shape, axis % scores.ndim
  )
  chosen = classes == jnp.expand_dims(target, axis)
  return jnp.sum(jnp.where(chosen, scores, 0), axis=axis, keepdims=True)


def _counted(
  per_image: Shaped[Array, " B"], mask: Bool[Any, " B"] | None
) -> tuple[Array, Array]:
  values = per_image.astype(jnp.float32)
  if mask is None:
    mask = jnp.ones(values.shape, bool)
  keep = jnp.asarray(mask, jnp.float32)
  return jnp.sum(values * keep), jnp.sum(keep)


def _check_weights(
  weights: Mapping[str, float], outputs: Mapping[str, Array]
) -> None:
  for task in weights:
    if task not in outputs:
      raise ValueError(
        f"weights names {task!r}, which is no output; there are "
        f"{', '.join(outputs)}"
      )
