"""Finds a config by name or path, and takes what is overridden.

`cifar10:joint,vit_small` is the module `cifar10` of the configs that are
installed with the package, `configs/cifar10.py:joint,vit_small` a file; what
follows the colon is handed to its `get_config`.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import json
import pathlib
import pkgutil
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

_INSTALLED = "relvit_jax.configs"
# Modules of it that are no data set's.
SHARED = ("arguments", "augment", "common", "recipes")

# Keys of which one stands for the other: to give one on the command line
# clears what the config said of the other.
_ALTERNATIVES = {"num_steps": "num_epochs", "num_epochs": "num_steps"}


def load(spec: str, overrides: Iterable[str] = ()) -> Any:
  """The ConfigDict of `name:argument` or `path.py:argument`.

  Args:
    spec: as above.
    overrides: `key=value`, the key with dots: `model.depth=6`.

  Raises:
    ValueError: there is no such config or key, or the value is of another
      type; with what there is.
  """
  name, _, argument = spec.partition(":")
  module = _from_file(name) if name.endswith(".py") else _installed(name)
  if not hasattr(module, "get_config"):
    raise ValueError(f"config={spec!r} has no function get_config")
  config = module.get_config(argument) if argument else module.get_config()
  if not isinstance(config, ConfigDict):
    raise ValueError(
      f"config={spec!r}: get_config returned {type(config).__name__}, "
      "not a ConfigDict"
    )
  override(config, overrides)
  return config


def override(config: Any, overrides: Iterable[str]) -> None:
  """Sets each `key=value`, in place."""
  given = {}
  for text in overrides:
    key, equals, value = text.partition("=")
    if not equals:
      raise ValueError(f"{text!r} must be KEY=VALUE, such as {text}=…")
    given[key] = _read(key, value, kinds(config))
  for key, value in given.items():
    other = _ALTERNATIVES.get(key)
    if other and other not in given and value is not None:
      config[other] = None
    config.update_from_flattened_dict({key: value})


def kinds(config: Any, prefix: str = "") -> dict[str, type]:
  """Every key with dots → the type of its value."""
  result = {}
  for name in config:
    key = prefix + name
    value = config.get_oneway_ref(name).get()
    if isinstance(value, ConfigDict):
      result |= kinds(value, f"{key}.")
    else:
      result[key] = config.get_type(name)
  return result


def fits(value: Any, kind: type) -> bool:
  """Whether a value that is not None can stand where this type is due."""
  if kind is float:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
  if kind is tuple:
    return isinstance(value, (list, tuple))
  if kind is object:
    counts = value if isinstance(value, (list, tuple)) else [value]
    return all(type(count) is int for count in counts)
  return type(value) is kind


def unknown(key: str, known: Iterable[str]) -> str:
  """What to say of a key that does not exist."""
  names = list(known)
  close = difflib.get_close_matches(key, names, n=3, cutoff=0.5)
  inside = [name for name in names if name.startswith(f"{key}.")]
  last = [name for name in names if name.endswith(f".{key.split('.')[-1]}")]
  if inside:
    return f"{key} is a group of keys: {', '.join(inside)}"
  better = ", ".join(dict.fromkeys(last + close)) or "none is like it"
  return f"{key} is no key of a config; did you mean: {better}?"


def to_json(config: Any) -> str:
  """All keys and values, sorted, for a file and for `from_json`."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> Any:
  """The config that `to_json` wrote."""
  return from_dict(json.loads(text))


def from_dict(nested: Mapping[str, Any]) -> Any:
  """The config of `to_dict`, whose tuples may have become lists.

  Raises:
    ValueError: it has a key that there is not.
  """
  from relvit_jax.configs import (  # pyright: ignore[reportMissingImports]
    common,
  )

  values: dict[str, Any] = flat(nested)
  stage = values.get("stage", "supervised")
  config = common.get_config(common.Arguments(stage))
  types = kinds(config)
  for key, value in values.items():
    if key not in types:
      raise ValueError(unknown(key, types))
    if isinstance(value, list):
      value = tuple(value)
    config.update_from_flattened_dict({key: value})
  return config


def differences(ours: Any, theirs: Any) -> dict[str, tuple]:
  """Keys with another value → (ours, theirs)."""
  left, right = (flat(json.loads(to_json(one))) for one in (ours, theirs))
  return {
    key: (left.get(key), right.get(key))
    for key in sorted(left.keys() | right.keys())
    if left.get(key) != right.get(key)
  }


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Nested values by their keys with dots."""
  result = {}
  for name, value in values.items():
    if isinstance(value, Mapping):
      result |= flat(value, f"{prefix}{name}.")
    else:
      result[prefix + name] = value
  return result


def _read(key: str, text: str, types: Mapping[str, type]) -> Any:
  """The value that was typed for a key."""
  if key not in types:
    raise ValueError(unknown(key, types))
  if text == "None":
    return None
  kind: type = types[key]
  convert: Any = kind
  if kind is str:
    return text
  try:
    value = ast.literal_eval(text)
  except (SyntaxError, ValueError):
    value = text
  if kind is object and isinstance(value, list):
    value = tuple(value)
  if kind is tuple and isinstance(value, str):
    value = tuple(value.split(","))  # --config.tasks=label,relation
  if not fits(value, kind):
    raise ValueError(f"{key}={text} must be {_WORDS[kind]}")
  # Of object no value can be made.
  return value if kind is object else convert(value)


_WORDS = {
  int: "a whole number",
  float: "a number",
  bool: "True or False",
  tuple: "values with commas between them, such as 0.5,1.0",
  str: "text",
  # What a backbone in stages has of each.
  object: "a whole number, or one for each stage, such as 2,2,6,2",
}


def kind_in_words(kind: type) -> str:
  """What to ask for where this type is due."""
  return _WORDS[kind]


def _installed(name: str) -> ModuleType:
  package = importlib.import_module(_INSTALLED)
  names = sorted(
    module.name for module in pkgutil.iter_modules(package.__path__)
  )
  names = [name for name in names if name not in SHARED]
  if name not in names:
    raise ValueError(
      f"config={name!r} does not exist; there are {', '.join(names)}, or the "
      "path of a .py file"
    )
  return importlib.import_module(f"{_INSTALLED}.{name}")


def _from_file(path: str) -> ModuleType:
  if not pathlib.Path(path).is_file():
    raise ValueError(f"config={path!r}: there is no such file")
  spec = importlib.util.spec_from_file_location("relvit_config", path)
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
