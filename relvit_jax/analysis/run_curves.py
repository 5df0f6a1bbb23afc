"""How a run went, as a picture made from what its work directory keeps."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from relvit_jax.analysis import figures
from relvit_jax.training import checkpoint, logs, metrics, pieces, workdir
from relvit_jax.training.progress import WORDS

_LINES = {"train": "training", "validation": "validation"}


def figure(folder: pathlib.Path) -> Figure:
  """The loss and each metric by the step, in training and validation.

  Args:
    folder: a work directory, of a run that has ended or is still going.

  Raises:
    ValueError: no run began there, or none of its steps is kept yet.
    FileNotFoundError: likewise.
  """
  config = workdir.read_config(folder)
  records = logs.read(folder)
  if not records:
    raise ValueError(f"{folder} has no curves yet: no step was evaluated")
  meta = checkpoint.read_meta(*checkpoint.find(folder / workdir.CHECKPOINTS))
  chance = metrics.chance(
    config.tasks,
    meta["grid_size"],
    len(meta["class_names"]) or None,
    pieces.localisation_of(config),
  )
  measured = {name for record in records for name in record}
  # Five of a few classes tell little.
  left_out = {"label_top5"} if len(meta["class_names"]) <= 20 else set()
  shown = [name for name in WORDS if name in measured - left_out]
  return figures.curves([_panel(records, name, chance) for name in shown])


def _panel(
  records: list[dict[str, Any]], metric: str, chance: dict[str, float]
) -> dict[str, Any]:
  name, unit, factor = WORDS[metric]
  curves = {
    text: _curve(records, split, metric) for split, text in _LINES.items()
  }
  panel = {
    "title": f"{name} (dotted: chance)" if metric in chance else name,
    "ylabel": unit.strip(),
    "percent": factor == 100,
    "curves": {text: curve for text, curve in curves.items() if curve[0]},
  }
  if metric in chance:
    panel["chance"] = {"validation": chance[metric]}
  return panel


def _curve(
  records: list[dict[str, Any]], split: str, metric: str
) -> figures.Curve:
  points = {
    record["step"]: record[metric]
    for record in records
    if record["split"] == split and metric in record
  }
  return list(points), np.array([list(points.values())])
