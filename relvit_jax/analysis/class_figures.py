"""Pictures of what a model says of classes, from arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure

from relvit_jax.analysis.figures import WRONG

_COLUMNS = 6
# Of more classes the names would cover each other.
_MOST_NAMES = 40


def predictions(
  images: UInt8[np.ndarray, "n H W 3"],
  said: Sequence[str],
  shares: Float[np.ndarray, " n"],
  truth: Sequence[str],
) -> Figure:
  """Images with the class that a model finds likeliest; wrong ones in orange.

  Args:
    images: six a row.
    said: the class of each.
    shares: the probability that the model gives it.
    truth: the class that each has; "" where nobody knows.
  """
  rows, columns = math.ceil(len(images) / _COLUMNS), min(_COLUMNS, len(images))
  figure = Figure(figsize=(1.6 * columns, 2 * rows), layout="constrained")
  places = figure.subplots(rows, columns, squeeze=False)
  for axes in places.flat[len(images) :]:
    axes.remove()
  for axes, image, name, share, true in zip(
    places.flat, images, said, shares, truth, strict=False
  ):
    axes.imshow(image, interpolation="nearest")
    axes.set_axis_off()
    is_wrong = bool(true) and name != true
    answer = f"{_short(name)}, {100 * share:.0f} %"
    axes.set_title(
      f"{answer}\nit is {_short(true)}" if is_wrong else answer,
      fontsize=9,
      color=WRONG if is_wrong else "black",
    )
  return figure


def confusion(
  counts: Int[np.ndarray, "classes classes"], class_names: Sequence[str]
) -> Figure:
  """Which class is taken for which, in per cent of the images of the true one.

  Args:
    counts: by the true class and the one that was said.
    class_names: of both.
  """
  number = len(class_names)
  of_true = np.maximum(counts.sum(axis=1, keepdims=True), 1)
  shares = 100 * counts / of_true
  side = min(9.0, 2.2 + 0.42 * number)
  figure = Figure(figsize=(side + 0.8, side), layout="constrained")
  axes = figure.subplots()
  shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
  figure.colorbar(shown, ax=axes, label="% of the true class", shrink=0.8)
  axes.set_xlabel("said")
  axes.set_ylabel("true")
  if number > _MOST_NAMES:
    return figure
  names = [_short(name) for name in class_names]
  turned = 90 if max(map(len, names)) > 3 else 0
  axes.set_xticks(range(number), names, fontsize=9, rotation=turned)
  axes.set_yticks(range(number), names, fontsize=9)
  for row, column in np.argwhere(counts > 0) if number <= 20 else ():
    axes.text(
      column,
      row,
      f"{shares[row, column]:.0f}",
      ha="center",
      va="center",
      fontsize=8,
      color="white" if shares[row, column] > 50 else "black",
    )
  return figure


def _short(name: str) -> str:
  return name if len(name) <= 14 else f"{name[:13]}…"
