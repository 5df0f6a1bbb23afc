"""What the tasks ask of a pair of patches, and what an answer costs.

Rows are first patches, of which there may be fewer than all: what holds of all
pairs at once holds of a block of rows.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped
from numpy.typing import ArrayLike

from relvit_jax import grid


def shown(
  grid_size: tuple[int, int], permutation: ArrayLike | None
) -> Int[Any, "C N 2"]:
  """Coordinates of the patches, in the order in which an image shows them.

  Of each image; without a permutation once for all, and NumPy's.
  """
  places = grid.coordinates(*grid_size)
  if permutation is None:
    return places[None]
  return jnp.asarray(places)[jnp.asarray(permutation)]


def targets(
  task: str,
  first: Int[Any, "B n 2"],
  grid_size: tuple[int, int],
  second: Int[Any, "B N 2"] | None = None,
) -> Shaped[Any, "B n N"]:
  """What relation, distance or angle asks for; NumPy's of NumPy's.

  Args:
    task: relation, distance or angle.
    first: coordinates of the first patches.
    grid_size: (rows, columns) of patches.
    second: coordinates of the second patches; None for the first ones.
  """
  if task == "relation":
    return grid.pair_relations(first, second)
  if task == "distance":
    return grid.pair_distances(first, grid_size, second)
  return grid.pair_angles(first, grid_size, second)


def losses(
  task: str,
  output: Float[Array, "B ..."],
  target: Shaped[Any, "C n N"],
  smoothing: float = 0.0,
) -> Float[Array, "B n N"]:
  """The loss of each pair: a cross entropy or a squared error.

  Args:
    task: relation, distance or angle.
    output: [B,9,n,N] of relation, else [B,n,N].
    target: as of `targets`, of each image or of all.
    smoothing: share of a relation's target spread over all nine.
  """
  if task == "relation":
    return cross_entropy(output, target, 1, smoothing)
  return jnp.square(output - target)


def scores(
  task: str, output: Float[Array, "B ..."], target: Shaped[Any, "C n N"]
) -> Float[Array, "B n N"]:
  """1 or 0 for a relation told right or not; of the others, absolute errors."""
  if task == "relation":
    return (jnp.argmax(output, axis=1) == target).astype(jnp.float32)
  return jnp.abs(output - target)


def check_grid(
  what: str,
  shape: tuple[int, ...],
  grid_size: tuple[int, int],
  permutation: ArrayLike | None,
) -> None:
  """Raises unless scores [B,…,N,N] belong to a grid and a permutation.

  What does not could broadcast, and be wrong in silence.
  """
  height, width = grid_size
  num_patches = height * width
  if shape[-2:] != (num_patches, num_patches):
    raise ValueError(
      f"{what} does not belong to grid_size=({height}, {width}), which has "
      f"{num_patches} patches"
    )
  expected = (shape[0], num_patches)
  if permutation is not None and np.shape(permutation) != expected:
    raise ValueError(
      f"permutation of shape {np.shape(permutation)} must be [B, N] = "
      f"{expected}: an order for each image"
    )


def check_share(name: str, share: float) -> None:
  """Raises unless a smoothing or dropout is one."""
  if not 0 <= share < 1:
    raise ValueError(f"{name}={share} must be in [0, 1)")


def kept(
  key: Array | None,
  dropout: float,
  batch: int,
  rows: Int[Any, " n"],
  num_patches: int,
) -> Bool[Array, "B n N"]:
  """Which pairs answer for their loss; the others are dropped.

  Each row is drawn from a key of its own, so that a block of rows leaves out
  the pairs that it leaves out among all rows.
  """
  if key is None:
    raise ValueError(f"relation_dropout={dropout} needs a random key")

  def row(number: Array) -> Array:
    own = jax.random.fold_in(key, number)
    return jax.random.bernoulli(own, 1 - dropout, (batch, num_patches))

  return jax.vmap(row, out_axes=1)(jnp.asarray(rows))


def cross_entropy(
  scores: Float[Array, "*S"],
  target: Int[Any, "*T"],
  axis: int,
  smoothing: float = 0.0,
) -> Float[Array, "*P"]:
  """-log p(target), with `smoothing` of the target spread over all classes."""
  log_p = jax.nn.log_softmax(scores, axis=axis)
  classes = jax.lax.broadcasted_iota(
    jnp.int32, scores.shape, axis % scores.ndim
  )
  is_target = classes == jnp.expand_dims(target, axis)
  chosen = -jnp.sum(jnp.where(is_target, log_p, 0), axis=axis)
  if smoothing == 0:
    return chosen
  return (1 - smoothing) * chosen - smoothing * jnp.mean(log_p, axis=axis)
