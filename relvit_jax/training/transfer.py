"""From the weights of one model to the start of another."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from relvit_jax.training import partitioning


class Transfer(NamedTuple):
  """What `backbone` did.

  Attributes:
    params: the target's parameters, with the source's backbone in them.
    taken: paths that were taken over.
    fresh: path → why the target keeps its own initial value.
    left: paths of the source that have no place in the target.
  """

  params: Any
  taken: tuple[str, ...]
  fresh: dict[str, str]
  left: tuple[str, ...]


def backbone(source: Any, target: Any) -> Transfer:
  """Takes over every backbone parameter that has its like in the target.

  Heads stay the target's own: they answer other questions.

  Args:
    source: parameters of the model that was pre-trained.
    target: initial parameters of the model to train next; unchanged.
  """
  given = {
    partitioning.path_name(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(source)
  }
  taken: list[str] = []
  fresh: dict[str, str] = {}

  def choose(path: Any, own: Any) -> Any:
    name = partitioning.path_name(path)
    theirs = given.get(name)
    if not name.startswith("backbone/"):
      fresh[name] = "a head"
    elif theirs is None:
      fresh[name] = "not in the source"
    elif theirs.shape != own.shape:
      fresh[name] = f"shape {theirs.shape} there, {own.shape} here"
    else:
      taken.append(name)
      # A copy: the training step donates its state, the source stays whole.
      return jnp.copy(theirs)
    return own

  params = jax.tree_util.tree_map_with_path(choose, target)
  left = tuple(sorted(set(given) - set(taken)))
  return Transfer(params, tuple(taken), fresh, left)
