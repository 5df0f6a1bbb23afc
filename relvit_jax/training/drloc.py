"""Dense relative localisation: pairs of patches, their loss and its weight.

L_drloc of Liu et al., "Efficient Training of Visual Transformers with Small
Datasets" (2021), as the code of yhlleo/VTs-Drloc computes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key
from numpy.typing import ArrayLike

from relvit_jax.data import augment
from relvit_jax.models.variants import DRLOC_MODES

# Of the variance-aware regression "cbr": what log variance costs, and what
# keeps a variance of 0 finite.
_VARIANCE_COST = 0.001
_VARIANCE_EPSILON = 1e-8


def draw_pairs(
  keys: Key[Array, " B"], num_pairs: int, grid_size: Sequence[int]
) -> tuple[Int[Array, "B {num_pairs} 2"], Int[Array, "B {num_pairs} 2"]]:
  """(row, column) of both patches of `num_pairs` random pairs an image.

  All drawn alone and with replacement: a pair may come twice, and may be one
  patch with itself.
  """
  if num_pairs < 1:
    raise ValueError(f"num_pairs={num_pairs} must be at least 1")
  sides = np.asarray(grid_size, np.float32).reshape(1, 1, 1, 2)
  numbers = augment.draw(keys, 2, num_pairs, 2) * sides
  # A number just below 1 times a side may round up to the side.
  places = jnp.minimum(jnp.floor(numbers), sides - 1).astype(jnp.int32)
  return places[:, 0], places[:, 1]


def targets(
  first: ArrayLike,
  second: ArrayLike,
  grid_size: Sequence[int],
  use_abs: bool = True,
) -> Int[Array, "P 2"]:
  """Rows and columns from the second patch to the first, of P = B · m pairs.

  Without `use_abs` a difference has its sign and side - 1 is added to it, so
  that 0 .. 2 · side - 2 are classes.
  """
  first, second = jnp.asarray(first), jnp.asarray(second)
  if first.shape != second.shape or first.shape[-1:] != (2,):
    raise ValueError(
      f"first and second, of shapes {first.shape} and {second.shape}, must "
      "both be [B, m, 2]"
    )
  difference = (first - second).reshape(-1, 2).astype(jnp.int32)
  if use_abs:
    return jnp.abs(difference)
  return difference + (np.asarray(grid_size, np.int32) - 1)[None]


def drloc(
  prediction: ArrayLike,
  first: ArrayLike,
  second: ArrayLike,
  grid_size: Sequence[int],
  mode: str = "l1",
  use_abs: bool = True,
  *,
  normalise_targets: bool = False,
) -> Float[Array, ""]:
  """The loss of dense relative localisation, a mean over pairs.

  "l1" is the mean absolute error, also a mean over the two axes; "ce" the sum
  of the two axes' cross entropies; "cbr" the sum of two regressions: squared
  error of the expected class over its variance, and 0.001 log variance.

  Args:
    prediction: of `heads.DenseRelativeLocalisation`, [B·m, 2] or [B·m, K, 2].
    first: (row, column) of one patch of each pair, [B, m, 2].
    second: of the other.
    grid_size: (rows, columns) of patches.
    mode: l1, ce or cbr.
    use_abs: whether differences have no sign.
    normalise_targets: what an l1 prediction should be. False, as the code
      does: whole grid cells, shifted to begin at 0 where they have a sign.
      True, as the paper writes: shares of the side, with their sign. The
      scale differs: the paper also sums over the axes, where this takes the
      mean. On k × k cells the code's loss is k / 2 times the paper's (3.5 at
      7 × 7), and the paper's weight λ is 2 λ / k here, or 2 λ if normalised.

  Raises:
    ValueError: a mode that there is not, shapes that do not fit.
  """
  return jnp.mean(
    pair_losses(
      jnp.asarray(prediction),
      first,
      second,
      grid_size,
      mode=mode,
      use_abs=use_abs,
      normalise_targets=normalise_targets,
    )
  )


def pair_losses(
  prediction: Float[Array, "P ..."],
  first: ArrayLike,
  second: ArrayLike,
  grid_size: Sequence[int],
  *,
  mode: str,
  use_abs: bool,
  normalise_targets: bool,
) -> Float[Array, " P"]:
  """What `drloc`, which has the arguments, is the mean of: of each pair."""
  wanted = targets(first, second, grid_size, use_abs)
  _check(prediction, wanted, grid_size, mode, use_abs)
  if normalise_targets and mode != "l1":
    raise ValueError(
      f"normalise_targets=True needs mode='l1': the targets of {mode!r} are "
      "classes"
    )
  if mode == "l1":
    goal = wanted.astype(jnp.float32)
    if normalise_targets:
      sides = np.asarray(grid_size, np.float32)[None]
      goal = (goal if use_abs else goal - (sides - 1)) / sides
    return jnp.mean(jnp.abs(prediction - goal), axis=-1)
  regress = _cross_entropy if mode == "ce" else _variance_aware_regression
  rows, columns = (
    regress(prediction[..., axis], wanted[:, axis]) for axis in (0, 1)
  )
  return rows + columns


def weight_schedule(
  weight: float, total_steps: int, warmup_steps: int = 0
) -> optax.Schedule:
  """Weight of the loss: linearly from 0 up to `weight`, then down to 0.

  weight · s / warmup up to step `warmup_steps`, and from there
  weight · (total - s) / (total - warmup). VTs-Drloc does so with 20 of 300
  epochs, changing the weight once an epoch; its published runs of "100
  epochs" are the first 101 of those 300, and end at 0.714 of the weight.
  """
  if weight < 0:
    raise ValueError(f"weight={weight} must not be negative")
  if not 0 <= warmup_steps < total_steps:
    raise ValueError(
      f"warmup_steps={warmup_steps} must be from 0 to below total_steps="
      f"{total_steps}"
    )

  def schedule(step: jax.typing.ArrayLike) -> jax.Array:
    step = jnp.minimum(jnp.asarray(step), total_steps)
    rise = step / max(warmup_steps, 1)
    fall = (total_steps - step) / (total_steps - warmup_steps)
    share = jnp.where(step < warmup_steps, rise, fall)
    return (weight * share).astype(jnp.float32)

  return schedule


def _check(
  prediction: Array,
  wanted: Array,
  grid_size: Sequence[int],
  mode: str,
  use_abs: bool,
) -> None:
  """A wrong shape could broadcast, and be wrong in silence."""
  if mode not in DRLOC_MODES:
    raise ValueError(
      f"mode={mode!r} does not exist; there are {', '.join(DRLOC_MODES)}"
    )
  longest = max(grid_size)
  classes = longest if use_abs else 2 * longest - 1
  expected = (len(wanted), 2) if mode == "l1" else (len(wanted), classes, 2)
  if prediction.shape != expected:
    raise ValueError(
      f"the prediction of shape {prediction.shape} must be {expected} for "
      f"{len(wanted)} pairs, grid_size={tuple(grid_size)}, mode={mode!r} and "
      f"use_abs={use_abs}"
    )


def _cross_entropy(
  scores: Float[Array, "P K"], wanted: Int[Array, " P"]
) -> Float[Array, " P"]:
  return optax.softmax_cross_entropy_with_integer_labels(scores, wanted)


def _variance_aware_regression(
  scores: Float[Array, "P K"], wanted: Int[Array, " P"]
) -> Float[Array, " P"]:
  """Dwibedi et al., "Temporal Cycle-Consistency Learning" (2019), eq. 4."""
  chance = jax.nn.softmax(scores, axis=-1)
  classes = jnp.arange(scores.shape[-1], dtype=jnp.float32)[None]
  mean = jnp.sum(chance * classes, axis=-1, keepdims=True)
  variance = jnp.sum(chance * jnp.square(classes - mean), axis=-1)
  variance += _VARIANCE_EPSILON
  error = jnp.square(mean[:, 0] - wanted)
  return error / variance + _VARIANCE_COST * jnp.log(variance)
