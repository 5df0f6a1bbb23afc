"""Finds a config by name or path.

`digits:pretrain` is the module `digits` of the configs that are installed with
the package, `configs/digits.py:pretrain` a file; what follows the colon is
handed to its `get_config`.
"""

from __future__ import annotations

import importlib
import importlib.util
import pathlib
import pkgutil
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

_INSTALLED = "relvit_jax.configs"


def load(spec: str) -> Any:
  """The ConfigDict of `name:argument` or `path.py:argument`.

  Raises:
    ValueError: there is no such config, with the names that there are.
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
  return config


def _installed(name: str) -> ModuleType:
  package = importlib.import_module(_INSTALLED)
  names = sorted(
    module.name for module in pkgutil.iter_modules(package.__path__)
  )
  names.remove("common")
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
