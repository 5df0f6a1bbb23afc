"""A model's arrays apart from it: nested dicts, trained and fixed."""

from __future__ import annotations

from typing import Any

from flax import nnx

from relvit_jax.models.relvit import RelViT

# Nested dicts of arrays; the keys of a list, such as blocks, are numbers.
Params = dict[Any, Any]


def split_model(
  model: RelViT, heads_only: bool = False
) -> tuple[Any, Params, Params]:
  """(graphdef, trained arrays, fixed arrays), the arrays as nested dicts.

  Args:
    model: not changed.
    heads_only: whether the backbone is fixed; no gradient of it is computed.
  """
  trained = nnx.All(nnx.Param, nnx.PathContains("heads"))
  graphdef, params, fixed = nnx.split(
    model, trained if heads_only else nnx.Param, ...
  )
  return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(fixed)


def merge_model(graphdef: Any, params: Params, fixed: Params) -> RelViT:
  """The inverse of `split_model`; inside jit it costs nothing."""
  return nnx.merge(graphdef, nnx.State(params), nnx.State(fixed))


def joined(params: Params, fixed: Params) -> Params:
  """All arrays of a model in one tree of nested dicts."""
  result = dict(params)
  for name, value in fixed.items():
    inner = result.get(name)
    result[name] = joined(inner, value) if isinstance(inner, dict) else value
  return result


def picked(arrays: Params, like: Params) -> Params:
  """Of all arrays those at the paths of `like`."""
  return {
    name: picked(arrays[name], value)
    if isinstance(value, dict)
    else arrays[name]
    for name, value in like.items()
  }
