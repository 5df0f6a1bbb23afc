"""What the tasks ask for, one loss a task, and their weighted sum.

The targets of the pair and position tasks are not data: they follow from the
grid and from the order in which an image shows its patches, and are made here
from the patches' coordinates.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from relvit_jax import grid
from relvit_jax.models.variants import TASKS
from relvit_jax.training.drloc import drloc as drloc


def targets(
  tasks: Iterable[str],
  grid_size: Sequence[int],
  permutation: ArrayLike | None = None,
) -> dict[str, Any]:
  """What the self-supervised tasks among `tasks` ask for.

  Args:
    tasks: names; label, which is no question of geometry, is passed over.
    grid_size: (rows, columns) of patches.
    permutation: [B,N], the patch that image b shows at place i; None for
      images left in order.

  Returns:
    relation, distance and angle [B,N,N] and position [B,N]. Without a
    permutation B is 1 and all are NumPy's: constants of a compiled step.
  """
  height, width = grid_size
  places = grid.coordinates(height, width)
  shown: Any
  if permutation is None:
    shown, order = places[None], grid.positions(height, width)[None]
  else:
    order = jnp.asarray(permutation)
    shown = jnp.asarray(places)[order]  # [B, N, 2]
  derive = {
    "relation": lambda: grid.pair_relations(shown),
    "distance": lambda: grid.pair_distances(shown, (height, width)),
    "angle": lambda: grid.pair_angles(shown, (height, width)),
    "position": lambda: order,
  }
  return {task: derive[task]() for task in tasks if task in derive}


def losses(
  outputs: Mapping[str, ArrayLike],
  labels: Mapping[str, ArrayLike],
  grid_size: Sequence[int],
  *,
  weights: Mapping[str, float] | None = None,
  permutation: ArrayLike | None = None,
  label_smoothing: float = 0.0,
  relation_smoothing: float = 0.0,
  relation_dropout: float = 0.0,
  key: Array | None = None,
  mask: Bool[Any, " B"] | None = None,
) -> dict[str, Float[Array, ""]]:
  """The loss of every output, and their sum.

  Relation, position and label are cross entropies, distance and angle mean
  squared errors, each a mean over images and pairs or patches; all N² ordered
  pairs count, a patch with itself included.

  Args:
    outputs: what the model returned, [B, ...] by task.
    labels: {"label": int [B]} where the label task is among the outputs.
    grid_size: (rows, columns) of patches.
    weights: what a task's loss counts in the total, 1 where not given.
    permutation: [B,N], the patch that image b shows at place i.
    label_smoothing: share of the label's target spread over all classes.
    relation_smoothing: the same for the relations.
    relation_dropout: chance of a pair to be left out of the relation loss, so
      that not every pair of an image answers for it. Drawn from `key`.
    key: a JAX random key, needed by relation_dropout.
    mask: false for images that do not count; None counts all.

  Returns:
    One scalar per output, unweighted, and "total".
  """
  outputs, wanted = prepare(outputs, labels, grid_size, permutation)
  for name, share in (
    ("label_smoothing", label_smoothing),
    ("relation_smoothing", relation_smoothing),
    ("relation_dropout", relation_dropout),
  ):
    if not 0 <= share < 1:
      raise ValueError(f"{name}={share} must be in [0, 1)")
  result = {}
  for task, output in outputs.items():
    kept = None
    if task == "relation":
      entropy = _cross_entropy(output, wanted[task], 1, relation_smoothing)
      kept = _kept_pairs(entropy.shape, relation_dropout, key)
    elif task == "position":
      entropy = _cross_entropy(output, wanted[task], -1)
    elif task == "label":
      entropy = _label_entropy(output, wanted[task], label_smoothing)
    else:
      entropy = jnp.square(output - wanted[task])
    result[task] = _mean(entropy, kept, mask)
  weights = weights or {}
  for task in weights:
    if task not in TASKS:
      raise ValueError(
        f"weights names {task!r}; the tasks are {', '.join(TASKS)}"
      )
  result["total"] = functools.reduce(
    jnp.add, [loss * weights.get(task, 1.0) for task, loss in result.items()]
  )
  return result


def prepare(
  outputs: Mapping[str, ArrayLike],
  labels: Mapping[str, ArrayLike],
  grid_size: Sequence[int],
  permutation: ArrayLike | None,
) -> tuple[dict[str, Array], dict[str, Any]]:
  """(outputs, what each should have been), after checking their shapes.

  A wrong grid or permutation could broadcast, and be wrong in silence.
  """
  if not outputs:
    raise ValueError("outputs is empty: there is nothing to compute")
  height, width = grid_size
  num_patches = height * width
  outputs = {task: jnp.asarray(output) for task, output in outputs.items()}
  for task, output in outputs.items():
    if task not in TASKS:
      raise ValueError(
        f"outputs names {task!r}; the tasks are {', '.join(TASKS)}"
      )
    if task == "label":
      continue
    if output.shape[-2:] != (num_patches, num_patches):
      raise ValueError(
        f"the {task} output of shape {output.shape} does not belong to "
        f"grid_size=({height}, {width}), which has {num_patches} patches"
      )
    expected = (output.shape[0], num_patches)
    if permutation is not None and np.shape(permutation) != expected:
      raise ValueError(
        f"permutation of shape {np.shape(permutation)} must be [B, N] = "
        f"{expected}: an order for each image"
      )
  wanted = targets(outputs, (height, width), permutation)
  if "label" in outputs:
    if "label" not in labels:
      raise ValueError(
        f"the outputs include label, but labels has only {sorted(labels)}"
      )
    wanted["label"] = jnp.asarray(labels["label"], jnp.int32)
  return outputs, wanted


def _kept_pairs(
  shape: tuple[int, ...], dropout: float, key: Array | None
) -> Bool[Array, "B N N"] | None:
  if dropout == 0:
    return None
  if key is None:
    raise ValueError(f"relation_dropout={dropout} needs a random key")
  return jax.random.bernoulli(key, 1 - dropout, shape)


def _label_entropy(
  scores: Float[Array, "B C"], labels: Int[Array, " B"], smoothing: float
) -> Float[Array, " B"]:
  """NaN for a label that is no class, which stops a run."""
  entropy = _cross_entropy(scores, labels, -1, smoothing)
  known = (labels >= 0) & (labels < scores.shape[-1])
  return jnp.where(known, entropy, jnp.nan)


def _mean(
  values: Float[Array, "B ..."],
  kept: Bool[Array, "B ..."] | None,
  mask: Bool[Any, " B"] | None,
) -> Float[Array, ""]:
  """Over what is kept of the images that count."""
  if mask is not None:
    counted = jnp.reshape(mask, (-1, *(1,) * (values.ndim - 1)))
    kept = jnp.broadcast_to(counted, values.shape) & (
      True if kept is None else kept
    )
  if kept is None:
    return jnp.mean(values)
  # Not a product with 0: what does not count may be NaN.
  total = jnp.sum(jnp.where(kept, values, 0))
  return total / jnp.maximum(jnp.sum(kept), 1)


def _cross_entropy(
  scores: Float[Array, "*S"],
  target: Int[Any, "*T"],
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
  scores: Float[Array, "*S"], target: Int[Any, "*T"], axis: int = -1
) -> Float[Array, "*P"]:
  """The scores of the target class, with the class axis kept."""
  classes = jax.lax.broadcasted_iota(
    jnp.int32, scores.shape, axis % scores.ndim
  )
  chosen = classes == jnp.expand_dims(target, axis)
  return jnp.sum(jnp.where(chosen, scores, 0), axis=axis, keepdims=True)
