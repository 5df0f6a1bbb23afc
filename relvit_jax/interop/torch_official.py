"""Weights from and to the official PyTorch code (guglielmocamporese/relvit).

A parameter is mapped by its name and its kind alone: PyTorch stores a linear
layer as [out, in], a convolution as [out, in, rows, columns] and the windows of
a soft split channel by channel; each of the nine relation heads has a query and
a key of its own. Fixed arrays, such as sinusoids, are mapped like the trained.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from relvit_jax.models import layers, stages, swin, tokens_to_token
from relvit_jax.models.heads import DenseRelativeLocalisation
from relvit_jax.models.relvit import PAIR_SCORES, RelViT
from relvit_jax.models.t2t_vit import T2TViT

HEAD_NAMES = {
  "relation": "rel_head",
  "distance": "dist_head",
  "angle": "angle_head",
  "position": "abs_pos_head",
  "label": "clf_head",
}

# Allocated by the official code and never used: the value projections of its
# pair heads in any model, the positional embedding where it is switched off,
# the classifier of T2T-ViT beside the one that all models have.
_UNUSED_ANYWHERE = re.compile(r"(rel|dist|angle)_head\.heads\.\d+\.v_lin\.\w+")
_UNUSED_WITHOUT_POS_EMBED = "backbone.pos_embed"
_UNUSED_IN_T2T = re.compile(r"backbone\.head\.\w+")

# What reads the windows of a soft split, and what the official performer calls
# the layers of its MLP.
_ON_WINDOWS = re.compile(
  r".*\.(attention\d\.norm1\.\w+|(kqv|attn\.qkv|project)\.kernel)"
)
_SPLIT_OF = {"attention1": 0, "attention2": 1, "project": 2}
_PERFORMER_MLP = {"fc1": "0", "fc2": "2"}

# Swin classifies with a head of its own, and keeps its fixed tables among the
# weights.
_SWIN_LABEL_HEAD = "backbone.head"
_UNUSED_WITH_SWIN = re.compile(
  r"clf_head\.(weight|bias)|backbone\.layers\.\d+\.blocks\.\d+\."
  r"(attn\.relative_position_index|attn_mask)"
)


class _Entry(NamedTuple):
  """One of our parameters and the official ones it is made of."""

  names: tuple[str, ...]
  param: nnx.Variable
  to_ours: Callable[[list[np.ndarray]], np.ndarray]
  to_official: Callable[[np.ndarray], list[np.ndarray]]


# What has official names; a head alone has those of VTs-Drloc.
Model = RelViT | DenseRelativeLocalisation


def load_state_dict(model: Model, state: Mapping[str, np.ndarray]) -> None:
  """Sets the weights of a model, in place, from the official ones.

  Args:
    model: a model of the same sizes and tasks, or a head of dense relative
      localisation, which has the names of yhlleo/VTs-Drloc, alone as in a
      model: `drloc.layers.0.weight`, and of a Swin `drloc.0.layers.0.weight`.
    state: official name → array, as of `{k: v.numpy() for k, v in
      torch_model.state_dict().items()}`.

  Raises:
    ValueError: names are missing or left over, with the list of them, or a
      shape differs. The model is then unchanged.
  """
  entries = list(_entries(model))
  known = {name for entry in entries for name in entry.names}
  missing = sorted(known - set(state))
  extra = sorted(
    name for name in set(state) - known if not _is_unused(name, model)
  )
  if missing or extra:
    raise ValueError(
      f"the weights do not fit the model; missing: {missing or 'none'}; "
      f"left over: {extra or 'none'}"
    )
  values = []
  for entry in entries:
    official = [np.asarray(state[name]) for name in entry.names]
    expected = [a.shape for a in entry.to_official(np.asarray(entry.param))]
    for name, array, shape in zip(entry.names, official, expected, strict=True):
      if array.shape != shape:
        raise ValueError(
          f"{name} has shape {array.shape}, the model needs {shape}"
        )
    values.append(entry.to_ours(official))
  for entry, value in zip(entries, values, strict=True):
    entry.param.set_value(jnp.asarray(value, entry.param.dtype))


def state_dict(model: Model) -> dict[str, np.ndarray]:
  """The weights of a model under the official names and in their layouts.

  What the official code allocates and never uses is not in it, nor are the
  fixed tables that its Swin makes anew: load it there with `strict=False`.
  """
  return {
    name: np.array(array, order="C")
    for entry in _entries(model)
    for name, array in zip(
      entry.names, entry.to_official(np.asarray(entry.param)), strict=True
    )
  }


def _entries(model: Model) -> Iterator[_Entry]:
  if isinstance(model, DenseRelativeLocalisation):
    for path, param in nnx.to_flat_state(nnx.state(model, nnx.Param)):
      yield _drloc_entry([], [str(part) for part in path], param)
    return
  kept = nnx.Any(nnx.Param, layers.Fixed)
  has_performers = isinstance(model.backbone, T2TViT) and isinstance(
    model.backbone.tokens_to_token.attention1, tokens_to_token.TokenPerformer
  )
  for path, param in nnx.to_flat_state(nnx.state(model, kept)):
    names = [str(part) for part in path]
    if names[:2] == ["heads", "drloc"]:
      # A list there in Swin, of one head unless more stages have theirs.
      place = ["0"] if isinstance(model.backbone, swin.Swin) else []
      yield _drloc_entry(["drloc", *place], names[2:], param)
    elif names[0] == "heads":
      head = HEAD_NAMES[names[1]]
      if names[1] == "label" and isinstance(model.backbone, swin.Swin):
        head = _SWIN_LABEL_HEAD
      yield _head_entry(names[1], head, names[2:], param)
    elif names[1] == "patch_embed" and names[-1] == "kernel":
      yield _convolution(_torch_name(names), param)
    elif names[1] == "tokens_to_token":
      yield _token_entry(names, param, has_performers)
    elif names[-1] == "kernel":
      yield _linear(_torch_name(names), param)
    else:
      yield _as_it_is(_torch_name(names), param)


def _torch_name(path: list[str]) -> str:
  leaf = {"kernel": "weight", "scale": "weight"}.get(path[-1], path[-1])
  return ".".join([*path[:-1], leaf])


def _head_entry(
  task: str, head: str, path: list[str], param: nnx.Variable
) -> _Entry:
  if task not in PAIR_SCORES:
    name = _torch_name([head, path[-1]])
    return _linear(name, param) if param.ndim == 2 else _as_it_is(name, param)
  count = PAIR_SCORES[task]
  projection = {"query": "q_lin", "key": "k_lin"}[path[0]]
  return _Entry(
    tuple(f"{head}.heads.{r}.{projection}.weight" for r in range(count)),
    param,
    lambda official: np.concatenate(official).T,
    lambda ours: np.split(ours.T, count),
  )


def _drloc_entry(
  prefix: list[str], path: list[str], param: nnx.Variable
) -> _Entry:
  """Its layers stand at even places there, with activations between them."""
  group, number, leaf = path
  place = int(number) * (2 if group == "layers" else 1)
  name = _torch_name([*prefix, group, str(place), leaf])
  return _linear(name, param) if param.ndim == 2 else _as_it_is(name, param)


def _token_entry(
  path: list[str], param: nnx.Variable, has_performers: bool
) -> _Entry:
  if has_performers and "mlp" in path:
    path = [_PERFORMER_MLP.get(part, part) for part in path]
  name = _torch_name(path)
  if _ON_WINDOWS.fullmatch(".".join(path)):
    size, _ = stages.SOFT_SPLITS[_SPLIT_OF[path[2]]]
    return _windows(name, param, size)
  if path[-1] == "kernel":
    return _linear(name, param)
  return _as_it_is(name, param)


def _windows(name: str, param: nnx.Variable, size: int) -> _Entry:
  """First axis [rows · columns · in] ↔ [in · rows · columns], last there."""

  def moved(array: np.ndarray, split: Any, old: int, new: int) -> np.ndarray:
    apart = array.reshape(*split, *array.shape[1:])
    return np.moveaxis(apart, old, new).reshape(array.shape)

  return _Entry(
    (name,),
    param,
    lambda a: moved(a[0].T, (-1, size, size), 0, 2),
    lambda a: [moved(a, (size, size, -1), 2, 0).T],
  )


def _linear(name: str, param: nnx.Variable) -> _Entry:
  return _Entry((name,), param, lambda a: a[0].T, lambda a: [a.T])


def _as_it_is(name: str, param: nnx.Variable) -> _Entry:
  return _Entry((name,), param, lambda a: a[0], lambda a: [a])


def _convolution(name: str, param: nnx.Variable) -> _Entry:
  """Kernel [rows · columns · 3, out] ↔ [out, 3, rows, columns]."""
  size, features = math.isqrt(param.shape[0] // 3), param.shape[1]
  return _Entry(
    (name,),
    param,
    lambda a: a[0].transpose(2, 3, 1, 0).reshape(-1, features),
    lambda a: [a.reshape(size, size, -1, features).transpose(3, 2, 0, 1)],
  )


def _is_unused(name: str, model: Model) -> bool:
  if isinstance(model, DenseRelativeLocalisation):
    return False
  if _UNUSED_ANYWHERE.fullmatch(name):
    return True
  if isinstance(model.backbone, swin.Swin):
    return bool(_UNUSED_WITH_SWIN.fullmatch(name))
  if _UNUSED_IN_T2T.fullmatch(name):
    return isinstance(model.backbone, T2TViT)
  return name == _UNUSED_WITHOUT_POS_EMBED and model.backbone.pos_embed is None
