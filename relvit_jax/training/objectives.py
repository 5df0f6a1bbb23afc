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
import optax
from jaxtyping import Array, Bool, Float, Real
from numpy.typing import ArrayLike

from relvit_jax import grid
from relvit_jax.models import heads
from relvit_jax.models.relvit import PAIR_SCORES
from relvit_jax.models.variants import ALL_TASKS
from relvit_jax.training import localisation as localisations
from relvit_jax.training import pair_blocks, pair_tasks
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
  shown = pair_tasks.shown((height, width), permutation)
  result: dict[str, Any] = {}
  for task in tasks:
    if task in PAIR_SCORES:
      result[task] = pair_tasks.targets(task, shown, (height, width))
    elif task == "position" and permutation is None:
      result[task] = grid.positions(height, width)[None]
    elif task == "position":
      result[task] = jnp.asarray(permutation)
  return result


@jax.named_scope("losses")
def losses(
  outputs: Mapping[str, Any],
  labels: Mapping[str, ArrayLike],
  grid_size: Sequence[int],
  *,
  weights: Mapping[str, Any] | None = None,
  permutation: ArrayLike | None = None,
  pairs: localisations.Pairs | None = None,
  localisation: localisations.Localisation | None = None,
  label_smoothing: float = 0.0,
  relation_smoothing: float = 0.0,
  relation_dropout: float = 0.0,
  key: Array | None = None,
  mask: Bool[Any, " B"] | None = None,
) -> dict[str, Float[Array, ""]]:
  """The loss of every output, and their sum.

  Relation, position and label are cross entropies, distance and angle mean
  squared errors, each a mean over images and pairs or patches; all N² ordered
  pairs count, a patch with itself included. Of drloc, see `drloc.drloc`.

  Args:
    outputs: what the model returned, [B, ...] by task, or, of relation,
      distance and angle, what `pair_blocks.PairBlocks` has answered: the same
      numbers without arrays of all pairs.
    labels: {"label": int [B]} where the label task is among the outputs; or
      [B,C], the probability of each class.
    grid_size: (rows, columns) of patches.
    weights: what a task's loss counts in the total, 1 where not given.
    permutation: [B,N], the patch that image b shows at place i.
    pairs: the places that the drloc output was asked about.
    localisation: what it was asked; None for the defaults.
    label_smoothing: share of the label's target spread over all classes.
    relation_smoothing: the same for the relations.
    relation_dropout: chance of a pair to be left out of the relation loss, so
      that not every pair of an image answers for it. Drawn from `key`.
    key: a JAX random key, needed by relation_dropout.
    mask: false for images that do not count; None counts all.

  Returns:
    One scalar per output, unweighted, and "total".
  """
  outputs, wanted = prepare(outputs, labels, grid_size, permutation, pairs)
  for name, share in (
    ("label_smoothing", label_smoothing),
    ("relation_smoothing", relation_smoothing),
    ("relation_dropout", relation_dropout),
  ):
    pair_tasks.check_share(name, share)
  result = {}
  for task, output in outputs.items():
    kept = None
    if isinstance(output, pair_blocks.Answered):
      if task == "relation":
        output.check(relation_smoothing, relation_dropout)
      result[task] = output.mean(mask)
      continue
    if task in PAIR_SCORES:
      smoothing = relation_smoothing if task == "relation" else 0.0
      entropy = pair_tasks.losses(task, output, wanted[task], smoothing)
      if task == "relation" and relation_dropout:
        batch, rows, _ = entropy.shape
        kept = pair_tasks.kept(
          key, relation_dropout, batch, np.arange(rows), rows
        )
    elif task == "position":
      entropy = pair_tasks.cross_entropy(output, wanted[task], -1)
    elif task == "label":
      entropy = _label_entropy(output, wanted[task], label_smoothing)
    else:
      asked = localisation or localisations.Localisation()
      entropy = asked.losses(output, wanted[task], grid_size)
    result[task] = _mean(entropy, kept, mask)
  weights = weights or {}
  for task in weights:
    if task not in ALL_TASKS:
      raise ValueError(
        f"weights names {task!r}; the tasks are {', '.join(ALL_TASKS)}"
      )
  result["total"] = functools.reduce(
    jnp.add, [loss * weights.get(task, 1.0) for task, loss in result.items()]
  )
  return result


def prepare(
  outputs: Mapping[str, Any],
  labels: Mapping[str, ArrayLike],
  grid_size: Sequence[int],
  permutation: ArrayLike | None,
  pairs: localisations.Pairs | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """(outputs, what each should have been), after checking their shapes.

  What is `pair_blocks.Answered` was checked before, and has been judged.
  """
  if not outputs:
    raise ValueError("outputs is empty: there is nothing to compute")
  height, width = grid_size
  result, asked = {}, []
  for task, output in outputs.items():
    if task not in ALL_TASKS:
      raise ValueError(
        f"outputs names {task!r}; the tasks are {', '.join(ALL_TASKS)}"
      )
    result[task] = output
    if isinstance(output, pair_blocks.Answered):
      continue
    if isinstance(output, heads.Projections):
      raise ValueError(
        f"the {task} output is queries and keys, not scores; "
        "pair_blocks.PairBlocks(rows).answer takes them"
      )
    result[task] = output = jnp.asarray(output)
    asked.append(task)
    if task not in ("label", "drloc"):
      pair_tasks.check_grid(
        f"the {task} output of shape {output.shape}",
        output.shape,
        (height, width),
        permutation,
      )
  wanted = targets(asked, (height, width), permutation)
  if "label" in outputs:
    if "label" not in labels:
      raise ValueError(
        f"the outputs include label, but labels has only {sorted(labels)}"
      )
    wanted["label"] = _labels(labels["label"], outputs["label"].shape)
  if "drloc" in outputs:
    if pairs is None:
      raise ValueError("the outputs include drloc, but pairs is None")
    wanted["drloc"] = localisations.shown(pairs, permutation, grid_size)
  return result, wanted


def _labels(given: ArrayLike, shape: tuple[int, ...]) -> Array:
  """Numbers of classes [B], or probabilities [B,C]."""
  given = jnp.asarray(given)
  if given.shape not in (shape[:1], shape):
    raise ValueError(
      f"labels of shape {given.shape} must be [B] or [B, C] = {shape}"
    )
  return given if given.ndim == 2 else given.astype(jnp.int32)


def _label_entropy(
  scores: Float[Array, "B C"], labels: Real[Array, "B ..."], smoothing: float
) -> Float[Array, " B"]:
  """NaN for a label that is no class, which stops a run."""
  if labels.ndim == 2:
    return optax.softmax_cross_entropy(
      scores, optax.smooth_labels(labels, smoothing)
    )
  entropy = pair_tasks.cross_entropy(scores, labels, -1, smoothing)
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
