"""What a trained model says of some images, as pictures."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8
from matplotlib.figure import Figure

from relvit_jax.analysis import class_figures, figures
from relvit_jax.data import feed
from relvit_jax.training.trained import Trained, confused


def relations(trained: Trained, split: feed.Examples, count: int = 6) -> Figure:
  """Where patches sit according to the model, seen from the busiest of each.

  Args:
    trained: a model with the relation task.
    split: the images; one of each class, as long as there are classes.
    count: how many.

  Raises:
    ValueError: the model was not asked for relations.
  """
  if "relation" not in trained.config.tasks:
    raise ValueError(f"{trained.where} learned no relations")
  batch = split.take(_chosen(split, count))
  scores = trained.outputs(batch)["relation"]
  images, grid_size = _shown(trained, batch), trained.model.grid_size
  return figures.relations(
    images,
    np.asarray(scores, np.float32),
    grid_size,
    figures.busiest(images, grid_size),
  )


def predictions(
  trained: Trained, split: feed.Examples, count: int = 12
) -> Figure:
  """Classes that the model finds likeliest, on images of every class.

  Raises:
    ValueError: the model has learned no labels.
  """
  _check_labels(trained)
  batch = split.take(_chosen(split, count))
  scores = np.asarray(trained.outputs(batch)["label"], np.float32)
  shares = np.asarray(jax.nn.softmax(scores))
  names = trained.class_names
  return class_figures.predictions(
    _shown(trained, batch),
    [names[index] for index in shares.argmax(axis=-1)],
    shares.max(axis=-1),
    [names[label] if label >= 0 else "" for label in batch["label"]],
  )


def confusion(trained: Trained, split: feed.Examples) -> Figure:
  """Which class the model takes for which, over all images of a split.

  Raises:
    ValueError: the model has learned no labels.
  """
  _check_labels(trained)
  answers = trained.answers(split)
  assert answers.labels is not None
  counts = confused(
    answers.labels, answers.features.labels, len(trained.class_names)
  )
  return class_figures.confusion(counts, trained.class_names)


def _check_labels(trained: Trained) -> None:
  if "label" not in trained.config.tasks:
    raise ValueError(f"{trained.where} learned no labels")


def _chosen(split: feed.Examples, count: int) -> Int[np.ndarray, " n"]:
  """Images in a fixed order at random, class after class in turn."""
  order = np.random.default_rng(0).permutation(len(split))[: 50 * count]
  labels = split.take(order)["label"]
  # How many of its class came before each.
  turn = np.array(
    [(labels[:i] == label).sum() for i, label in enumerate(labels)]
  )
  return order[np.lexsort((labels, turn))][:count]


def _shown(trained: Trained, batch: Any) -> UInt8[np.ndarray, "n H W 3"]:
  """The pixels that the model sees, as they look to a person."""
  views = trained.views
  seen = views.evaluation(jax.tree.map(jnp.asarray, batch))
  pixels = np.asarray(views.normalise(seen, inverse=True), np.float32)
  return np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
