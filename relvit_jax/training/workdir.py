"""A work directory: the config of a run, its logs, checkpoints and summary."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from relvit_jax import config as configs

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
SUMMARY = "summary.json"


def check(config: Any, workdir: pathlib.Path) -> None:
  """Raises unless the directory is new, empty, or that of this run.

  Raises:
    ValueError: it is a file, holds something else, or a run of another config;
      names the keys that differ.
  """
  if workdir.exists() and not workdir.is_dir():
    raise ValueError(f"workdir={workdir} is a file, not a folder")
  path = workdir / CONFIG
  if path.exists():
    _check_same(config, path)
    return
  if workdir.exists() and any(workdir.iterdir()):
    raise ValueError(
      f"workdir={workdir} holds other files and no {CONFIG}; a run needs a new "
      "or empty folder, or its own"
    )


def claim(config: Any, workdir: pathlib.Path) -> None:
  """Makes the directory, after `check`, that of this run.

  Not before a run is sure to begin: what was mistyped may be typed again.
  """
  path = workdir / CONFIG
  if path.exists():
    return
  workdir.mkdir(parents=True, exist_ok=True)
  fresh = path.with_name(f"{CONFIG}.new")
  fresh.write_text(configs.to_json(config), encoding="utf-8")
  fresh.replace(path)


def read_config(workdir: pathlib.Path) -> Any:
  """The config of the run in this directory.

  Raises:
    ValueError: there is none.
  """
  path = workdir / CONFIG
  if not path.is_file():
    raise ValueError(f"workdir={workdir} has no {CONFIG}: no run began there")
  return configs.from_json(path.read_text(encoding="utf-8"))


def write_summary(workdir: pathlib.Path, summary: dict[str, Any]) -> None:
  """Keeps what the end of a run printed."""
  text = json.dumps(summary, indent=2, sort_keys=True) + "\n"
  (workdir / SUMMARY).write_text(text, encoding="utf-8")


def _check_same(config: Any, path: pathlib.Path) -> None:
  there = configs.from_json(path.read_text(encoding="utf-8"))
  changed = configs.differences(there, config)
  if changed:
    listed = "".join(
      f"\n  {key}: {old!r} there, {new!r} asked for"
      for key, (old, new) in changed.items()
    )
    raise ValueError(
      f"workdir={path.parent} holds a run of another config; take another "
      f"folder, or ask for the same:{listed}"
    )
