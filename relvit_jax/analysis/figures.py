"""The pictures, each a function from arrays to a matplotlib Figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from relvit_jax import grid

# By the number of the relation: an arrow to where the other patch sits.
ARROWS = "↖↑↗←•→↙↓↘"

# Colours that people with any colour vision tell apart (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
WRONG = "#D55E00"
_INK = "#1b1f24"

# A curve: steps, and one row of values a seed.
Curve = tuple[Sequence[int], Float[np.ndarray, "seeds points"]]


def curves(panels: Sequence[Mapping[str, Any]]) -> Figure:
  """Curves of training, mean over seeds with the range as a band.

  Args:
    panels: two a row, each {"title", "ylabel", "curves": name → Curve} and,
      where there is one, "chance": name → the level to draw dotted in the same
      colour; "percent" for shares.
  """
  rows, columns = math.ceil(len(panels) / 2), min(2, len(panels))
  figure = Figure(figsize=(5.4 * columns, 3.4 * rows), layout="constrained")
  places = figure.subplots(rows, columns, squeeze=False)
  for axes in places.flat[len(panels) :]:
    axes.remove()
  for axes, panel in zip(places.flat, panels, strict=False):
    scale = 100 if panel.get("percent") else 1
    for colour, (name, (steps, values)) in zip(
      COLOURS, panel["curves"].items(), strict=False
    ):
      values = scale * np.asarray(values)
      axes.plot(steps, values.mean(axis=0), color=colour, label=name)
      axes.fill_between(
        steps,
        values.min(axis=0),
        values.max(axis=0),
        color=colour,
        alpha=0.18,
        linewidth=0,
      )
      if name in panel.get("chance", {}):
        axes.axhline(
          scale * panel["chance"][name],
          color=colour,
          linestyle=":",
          linewidth=1.2,
        )
    axes.set_title(panel["title"], fontsize=10)
    axes.set_xlabel("training steps")
    axes.set_ylabel(panel["ylabel"])
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
  return figure


def relations(
  images: UInt8[np.ndarray, "n H W 3"],
  scores: Float[np.ndarray, "n 9 N N"],
  grid_size: tuple[int, int],
  chosen: Int[np.ndarray, " n"],
) -> Figure:
  """What a model says of where each patch sits, seen from one, and the truth.

  Args:
    images: one column each.
    scores: the model's relation output.
    grid_size: (rows, columns) of patches.
    chosen: from which patch of each image the others are seen.
  """
  truth = grid.relations(*grid_size)
  told = scores.argmax(axis=1)  # [n, N, N]
  figure = Figure(figsize=(1.9 * len(images), 6.2), layout="constrained")
  rows = figure.subplots(3, len(images), squeeze=False)
  for column, (image, patch) in enumerate(
    zip(images, chosen.tolist(), strict=True)
  ):
    _image_with_patch(rows[0, column], image, grid_size, patch)
    _arrows(rows[1, column], truth[:, patch], truth[:, patch], grid_size)
    _arrows(rows[2, column], told[column, :, patch], truth[:, patch], grid_size)
    others = np.arange(len(truth)) != patch
    right = (told[column, :, patch] == truth[:, patch])[others].sum()
    rows[2, column].set_xlabel(f"{right} of {others.sum()} right", fontsize=9)
  for axes, text in zip(rows[:, 0], ("image", "truth", "model"), strict=True):
    axes.set_ylabel(text, fontsize=10)
  return figure


def busiest(
  images: UInt8[np.ndarray, "n H W 3"], grid_size: tuple[int, int]
) -> Int[np.ndarray, " n"]:
  """The patch of each image whose pixels differ most."""
  patches = grid.patchify(images.astype(float), images.shape[1] // grid_size[0])
  return patches.std(axis=-1).argmax(axis=-1)


def position_similarities(
  similarities: Mapping[str, Float[np.ndarray, "H W H W"]],
) -> Figure:
  """Cosine similarity of each place's embedding to all others, -1 to 1.

  One block of small maps a model; the map at row i, column j is what the
  place (i, j) is similar to.
  """
  count = len(similarities)
  figure = Figure(figsize=(3.3 * count + 0.9, 3.7), layout="constrained")
  ratios = [3.3] * count + [0.9]
  *blocks, key = figure.subfigures(
    1, count + 1, squeeze=False, width_ratios=ratios
  )[0]
  for block, (name, similarity) in zip(
    blocks, similarities.items(), strict=True
  ):
    block.suptitle(name, fontsize=10)
    height, width = similarity.shape[:2]
    axes = block.subplots(height, width, squeeze=False)
    for row in range(height):
      for column in range(width):
        axes[row, column].imshow(
          similarity[row, column], cmap="RdBu_r", vmin=-1, vmax=1
        )
        _bare(axes[row, column])
  bar = key.add_axes((0.1, 0.12, 0.16, 0.68))
  key.colorbar(
    ScalarMappable(Normalize(-1, 1), "RdBu_r"), cax=bar, ticks=[-1, 0, 1]
  )
  return figure


def _image_with_patch(
  axes: Axes,
  image: UInt8[np.ndarray, "H W 3"],
  grid_size: tuple[int, int],
  patch: int,
) -> None:
  height, width, _ = image.shape
  patch_height, patch_width = height / grid_size[0], width / grid_size[1]
  axes.imshow(image)
  for row in range(1, grid_size[0]):
    axes.axhline(row * patch_height - 0.5, color="#888", linewidth=0.5)
  for column in range(1, grid_size[1]):
    axes.axvline(column * patch_width - 0.5, color="#888", linewidth=0.5)
  row, column = divmod(patch, grid_size[1])
  axes.add_patch(
    Rectangle(
      (column * patch_width - 0.5, row * patch_height - 0.5),
      patch_width,
      patch_height,
      fill=False,
      edgecolor=WRONG,
      linewidth=2,
    )
  )
  _bare(axes)


def _arrows(
  axes: Axes,
  said: Int[np.ndarray, " N"],
  truth: Int[np.ndarray, " N"],
  grid_size: tuple[int, int],
) -> None:
  height, width = grid_size
  for patch, (relation, right) in enumerate(zip(said, truth, strict=True)):
    row, column = divmod(patch, width)
    axes.text(
      column,
      row,
      ARROWS[relation],
      ha="center",
      va="center",
      fontsize=min(15, 90 / width),
      color=_INK if relation == right else WRONG,
    )
  axes.set_xlim(-0.5, width - 0.5)
  axes.set_ylim(height - 0.5, -0.5)
  axes.set_aspect("equal")
  _bare(axes)


def _bare(axes: Axes) -> None:
  axes.set_xticks([])
  axes.set_yticks([])
