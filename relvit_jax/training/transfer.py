"""From the weights of one model to the start of another."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from relvit_jax.training import model_arrays, partitioning, step

Grid = tuple[int, int]

_POS_EMBED = "backbone/pos_embed"


class Transfer(NamedTuple):
  """What `backbone` did.

  Attributes:
    params: the target's parameters, with the source's backbone in them.
    taken: path → how: "as it is", or resized from which grid to which.
    fresh: path → why the target keeps its own initial value.
    left: paths of the source that have no place in the target.
  """

  params: Any
  taken: dict[str, str]
  fresh: dict[str, str]
  left: tuple[str, ...]

  def __str__(self) -> str:
    """What a person wants to know, in three lines at most."""
    lines = [f"taken: {len(self.taken)} arrays of the backbone"]
    changed = {name: how for name, how in self.taken.items() if how != AS_IT_IS}
    lines[0] += "".join(f"; {name} {how}" for name, how in changed.items())
    if self.fresh:
      lines.append(f"fresh: {_listed(self.fresh)}")
    if self.left:
      lines.append(f"left: {', '.join(_groups(self.left))}")
    return "\n".join(lines)


AS_IT_IS = "as it is"


def backbone(
  source: Any,
  target: Any,
  grids: tuple[Grid, Grid] | None = None,
  *,
  own_positions: bool = False,
) -> Transfer:
  """Takes over every backbone array that has its like in the target.

  Heads stay the target's own: they answer other questions.

  Args:
    source: arrays of the model that was pre-trained, as nested dicts.
    target: initial arrays of the model to train next; unchanged.
    grids: (rows, columns) of patches of source and target, to resize learned
      positional embeddings where they differ.
    own_positions: whether the target's positional embeddings are not learned,
      and stay as they are.
  """
  given = {
    partitioning.path_name(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(source)
  }
  taken: dict[str, str] = {}
  fresh: dict[str, str] = {}

  def choose(path: Any, own: Any) -> Any:
    name = partitioning.path_name(path)
    theirs = given.get(name)
    if not name.startswith("backbone/"):
      fresh[name] = "a head"
    elif own_positions and name == _POS_EMBED:
      fresh[name] = "not learned"
    elif theirs is None:
      fresh[name] = "not in the source"
    elif theirs.shape == own.shape:
      taken[name] = AS_IT_IS
      # A copy: the training step donates its state, the source stays whole.
      return _placed(jnp.array(theirs, own.dtype), own)
    elif (
      name == _POS_EMBED
      and grids
      and grids[0] != grids[1]
      # Not T2T-ViT's, of more tokens than its patches; a sinusoid needs none.
      and _is_of(theirs, grids[0])
      and _is_of(own, grids[1])
    ):
      (rows, columns), (height, width) = grids
      taken[name] = f"resized from {rows}×{columns} to {height}×{width} patches"
      resized = resize_pos_embed(jnp.asarray(theirs), *grids)
      return _placed(resized.astype(own.dtype), own)
    else:
      fresh[name] = f"shape {theirs.shape} there, {own.shape} here"
    return own

  params = jax.tree_util.tree_map_with_path(choose, target)
  left = tuple(sorted(set(given) - set(taken)))
  return Transfer(params, taken, fresh, left)


def start(
  state: step.TrainState,
  source: Any,
  grids: tuple[Grid, Grid] | None = None,
  *,
  own_positions: bool = False,
) -> tuple[step.TrainState, Transfer]:
  """A state with the source's backbone, trained and frozen parts alike.

  An average of the weights, where one is kept, begins with them. The arguments
  are those of `backbone`.

  Raises:
    ValueError: nothing of the source has a place in the state.
  """
  both = backbone(
    source,
    model_arrays.joined(state.params, state.fixed),
    grids,
    own_positions=own_positions,
  )
  if not both.taken:
    raise ValueError(f"no array of the checkpoint fits the model:\n{both}")
  params = model_arrays.picked(both.params, state.params)
  return dataclasses.replace(
    state,
    params=params,
    fixed=model_arrays.picked(both.params, state.fixed),
    # A copy: the training step donates all of its state.
    average=jax.tree.map(jnp.copy, params) if state.average else {},
  ), both


def resize_pos_embed(
  embedding: Float[Array, "1 T D"], source: Grid, target: Grid
) -> Float[Array, "1 S D"]:
  """Positional embeddings for another grid, bicubic; the class token's stays.

  Args:
    embedding: of the class token, if any, then of each patch of `source`.
    source: (rows, columns).
    target: likewise.
  """
  first = embedding.shape[1] - source[0] * source[1]
  dim = embedding.shape[2]
  grid = embedding[:, first:].reshape(1, *source, dim)
  grid = jax.image.resize(grid, (1, *target, dim), "bicubic")
  return jnp.concatenate(
    [embedding[:, :first], grid.reshape(1, -1, dim)], axis=1
  )


def _is_of(embedding: Any, grid: Grid) -> bool:
  """Whether it has a row for each patch and perhaps a class token."""
  return embedding.shape[1] - grid[0] * grid[1] in (0, 1)


def _placed(array: Array, like: Any) -> Any:
  sharding = getattr(like, "sharding", None)
  return array if sharding is None else jax.device_put(array, sharding)


def _listed(reasons: dict[str, str]) -> str:
  """a, b (a head); c (not in the source)."""
  by_reason: dict[str, list[str]] = {}
  for name, reason in reasons.items():
    by_reason.setdefault(reason, []).append(name)
  return "; ".join(
    f"{', '.join(_groups(names))} ({reason})"
    for reason, names in by_reason.items()
  )


def _groups(names: Any) -> list[str]:
  """heads/label/… for all that begins so: layers, not arrays."""
  return list(
    dict.fromkeys(
      name if name.count("/") < 2 else f"{name.rsplit('/', 1)[0]}"
      for name in names
    )
  )
