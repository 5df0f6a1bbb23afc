"""What the model is shown: images as stored, while evaluating, in training."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relvit_jax import grid
from relvit_jax.data import feed
from relvit_jax.models import variants
from relvit_jax.training import datasets, pieces, step

_LINE = {"color": "white", "linewidth": 0.4, "alpha": 0.7}


def sheet(config: Any, train: feed.Examples, rows: int, views: int) -> Figure:
  """One row an image: as stored, while evaluating, and in training.

  Args:
    config: with the keys of `configs/common.py`.
    train: the training split.
    rows: how many images.
    views: how many training views of each.
  """
  view = pieces.make_views(config, *datasets.colours(config, train))
  key = jax.random.key(config.seed)
  # Mixing needs an even number; one more is not shown.
  count = rows + rows % 2
  order = np.asarray(jax.random.permutation(key, len(train)))
  chosen = np.resize(order[:count], count)
  batch = jax.tree.map(jnp.asarray, train.take(chosen))

  @jax.jit
  def show(key: Any) -> Any:
    shown = view.training(jax.random.split(key, count), batch)
    return view.normalise(shown.images, inverse=True)

  @jax.jit
  def evaluate() -> Any:
    return view.normalise(view.evaluation(batch), inverse=True)

  columns = {"stored": batch["image"] / 255, "evaluation": evaluate()}
  for index in range(views):
    columns[f"training {index + 1}"] = show(step.noise_key(key, index))
  return _draw(
    {name: np.asarray(images)[:rows] for name, images in columns.items()},
    view.patch_size,
    in_words(config),
  )


def in_words(config: Any) -> str:
  """The augmentations that are on, and how strong."""
  augment, parts = config.augment, []
  if augment.crop == "pad":
    parts.append(f"shifts by up to {augment.crop_padding} px")
  elif augment.crop == "resized":
    low, high = augment.crop_scale
    parts.append(f"crop of {100 * low:g} to {100 * high:g} % of the area")
  if augment.flip:
    parts.append("flip")
  if augment.repeats > 1:
    parts.append(f"{augment.repeats} views of an image a batch")
  if augment.rand_augment:
    parts.append(
      f"RandAugment ({augment.rand_augment} of magnitude "
      f"{augment.rand_magnitude:g})"
    )
  if augment.mega_patches:
    parts.append(f"{augment.mega_patches}×{augment.mega_patches} mega-patches")
  if augment.patch_crop > 1:
    parts.append(f"patches cropped to 1/{augment.patch_crop:g}")
  if augment.patch_jitter:
    late = " after normalisation" if augment.jitter_after_normalise else ""
    parts.append(f"{100 * augment.patch_jitter:g} % jittered{late}")
  if augment.patch_grey:
    parts.append(f"{100 * augment.patch_grey:g} % grey")
  if augment.erasing:
    parts.append(f"{100 * augment.erasing:g} % erased")
  parts += _mixing_in_words(augment)
  if augment.permute_patches:
    only = ", in the targets only" if augment.permute_targets_only else ""
    parts.append(f"patches permuted{only}")
  size, model = config.data.image_size, config.model
  patch = variants.shown_patch(model.backbone, model.patch_size, model.depth)
  return (
    f"{config.data.name}, {config.stage}: {size}×{size} pixels, patches of "
    f"{patch}×{patch}\n{', '.join(parts) or 'no augmentation'}"
  )


def _mixing_in_words(augment: Any) -> list[str]:
  kinds = [
    f"{name} {alpha:g}"
    for name, alpha in (
      ("mixup", augment.mixup_alpha),
      ("cutmix", augment.cutmix_alpha),
    )
    if alpha
  ]
  if not kinds or not augment.mix_probability:
    return []
  return [f"{100 * augment.mix_probability:g} % {' or '.join(kinds)}"]


def _draw(
  columns: dict[str, Float[np.ndarray, "n H W 3"]], patch_size: int, title: str
) -> Figure:
  rows = len(columns["stored"])
  figure = Figure(
    figsize=(1.3 * len(columns) + 0.2, 1.3 * rows + 0.7), layout="constrained"
  )
  figure.suptitle(title, fontsize=9)
  places = figure.subplots(rows, len(columns), squeeze=False)
  for column, (name, images) in enumerate(columns.items()):
    places[0, column].set_title(name, fontsize=8)
    for axes, image in zip(places[:, column], images, strict=True):
      axes.imshow(np.clip(image, 0, 1), interpolation="nearest")
      axes.set_axis_off()
      if name != "stored":
        _draw_grid(axes, image.shape[:2], patch_size)
  return figure


def _draw_grid(axes: Axes, size: tuple[int, int], patch_size: int) -> None:
  rows, columns = grid.grid_of((size[0], size[1]), patch_size)
  for row in range(1, rows):
    axes.axhline(row * patch_size - 0.5, **_LINE)
  for column in range(1, columns):
    axes.axvline(column * patch_size - 0.5, **_LINE)
