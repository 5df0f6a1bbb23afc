"""The leaves of a tree by name: what they are, and whether they still are it.

A leaf's name is its path, `params/backbone/norm/scale`. Its description is
JSON: dtype, shape, kind of random key and checksum.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relvit_jax.training import partitioning

# How many leaves an error lists of each kind.
_LISTED = 8
# Bytes of a leaf that the host sums in half a millisecond.
_SMALL = 2**16


def arrays(tree: Any) -> dict[str, Any]:
  """Leaves by name, plain: the numbers of a random key in the key's place.

  Of a tree of shapes, these too with their shardings.

  Raises:
    ValueError: a leaf lies on no device; names it.
  """
  result = {}
  for name, leaf in _named(tree).items():
    if getattr(leaf, "sharding", None) is None:
      raise ValueError(f"{name} has no sharding: {leaf!r}")
    if not _is_key(leaf):
      result[name] = leaf
    elif isinstance(leaf, jax.Array):
      result[name] = jax.random.key_data(leaf)
    else:
      plain = jax.eval_shape(jax.random.key_data, leaf)
      result[name] = jax.ShapeDtypeStruct(
        plain.shape, plain.dtype, sharding=leaf.sharding
      )
  return result


def rebuild(
  like: Any, described: Mapping[str, Any], plain: Mapping[str, Any]
) -> Any:
  """The tree whose `arrays` these are, of the structure of `like`."""

  def leaf(path: Any, wanted: Any) -> Any:
    name = partitioning.path_name(path)
    impl = described[name]["key"]
    if impl is None:
      return plain[name]
    key = jax.random.wrap_key_data(plain[name], impl=impl)
    return jax.device_put(key, wanted.sharding)

  return jax.tree_util.tree_map_with_path(leaf, like)


def nested(plain: Mapping[str, Any]) -> dict[Any, Any]:
  """Nested dicts of leaves by name; numbers in a name are keys as numbers."""
  result: dict[Any, Any] = {}
  for name, leaf in plain.items():
    *above, last = (int(p) if p.isdecimal() else p for p in name.split("/"))
    place = result
    for part in above:
      place = place.setdefault(part, {})
    place[last] = leaf
  return result


def describe(tree: Any) -> dict[str, dict[str, Any]]:
  """A JSON description of every leaf of a tree of arrays, by name."""
  sums = _checksums(arrays(tree))
  return {
    name: {
      "dtype": str(leaf.dtype),
      "shape": list(leaf.shape),
      "key": str(jax.random.key_impl(leaf)) if _is_key(leaf) else None,
      "checksum": sums[name],
    }
    for name, leaf in _named(tree).items()
  }


def check_form(
  where: str, described: Mapping[str, Mapping[str, Any]], like: Any
) -> None:
  """Raises unless a tree has the described leaves, dtypes and shapes.

  Args:
    where: the description is from, for the message.
    like: arrays or shapes.

  Raises:
    ValueError: names the leaves, with what is there and what is wanted.
  """
  there = {
    name: f"{leaf['dtype']}{list(leaf['shape'])}"
    for name, leaf in described.items()
  }
  wanted = {
    name: f"{leaf.dtype}{list(leaf.shape)}"
    for name, leaf in _named(like).items()
  }
  wrong = {
    "missing there": [
      f"{name} {wanted[name]}" for name in wanted if name not in there
    ],
    "not wanted": [
      f"{name} {there[name]}" for name in there if name not in wanted
    ],
    "different": [
      f"{name} is {there[name]} there, wanted {wanted[name]}"
      for name in wanted
      if name in there and there[name] != wanted[name]
    ],
  }
  found = [f"{kind}: {_list(names)}" for kind, names in wrong.items() if names]
  if found:
    raise ValueError(f"{where} does not fit: {'; '.join(found)}")


def check_content(
  where: str,
  described: Mapping[str, Mapping[str, Any]],
  plain: Mapping[str, Any],
) -> None:
  """Raises unless `arrays` are those that were described.

  Args:
    where: they were read from, for the message.
    plain: some or all of them, on the device or the host.

  Raises:
    ValueError: names the leaves that changed.
  """
  if any(isinstance(leaf, jax.Array) for leaf in plain.values()):
    sums = _checksums(plain)
  else:
    sums = {name: int(_checksum(leaf, np)) for name, leaf in plain.items()}
  changed = [
    name for name in plain if sums[name] != described[name]["checksum"]
  ]
  if changed:
    raise ValueError(
      f"{where} is damaged: not what was saved is {_list(changed)}"
    )


def _named(tree: Any) -> dict[str, Any]:
  return {
    partitioning.path_name(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _is_key(leaf: Any) -> bool:
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _list(names: list[str]) -> str:
  more = len(names) - _LISTED
  listed = ", ".join(names[:_LISTED])
  return f"{listed} and {more} more" if more > 0 else listed


def _checksums(plain: Mapping[str, Any]) -> dict[str, int]:
  small = {name: leaf for name, leaf in plain.items() if _is_small(leaf)}
  # Leaf by leaf, and all fetched at once: equal shapes compile once.
  large = {n: _on_device(leaf) for n, leaf in plain.items() if n not in small}
  fetched, sums = jax.device_get((small, large))
  sums |= {name: _checksum(leaf, np) for name, leaf in fetched.items()}
  return {name: int(sums[name]) for name in plain}


def _is_small(leaf: Any) -> bool:
  """Whether to sum it here: compiling for its shape would take longer."""
  here = leaf.is_fully_addressable or leaf.is_fully_replicated
  return here and leaf.nbytes <= _SMALL


@jax.jit
def _on_device(array: Any) -> Any:
  return _checksum(array, jnp)


def _checksum(array: Any, xp: ModuleType) -> Any:
  """The bits as 32-bit words, each mixed with its place, summed modulo 2^32.

  In a sum the order does not count: it is the same however an array is spread
  over devices, and no array leaves its device for it. A change of one word
  always shows, for the mixing is one to one; of several, but once in 2^32.
  """
  width = min(array.dtype.itemsize, 4)
  words = array[..., None].view(f"uint{8 * width}").astype(xp.uint32)
  stride = 1
  for axis in reversed(range(words.ndim)):
    place = xp.arange(words.shape[axis], dtype=xp.uint32)
    others = tuple(other for other in range(words.ndim) if other != axis)
    # Of Knuth's multiplicative hash, as the other two are of MurmurHash3.
    factor = np.uint32(stride * 0x9E3779B1 % 2**32)
    words = words + xp.expand_dims(place, others) * factor
    stride *= words.shape[axis]
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
    words = (words ^ (words >> np.uint32(shift))) * np.uint32(factor)
  return xp.sum(words ^ (words >> np.uint32(16)), dtype=xp.uint32)
