"""A trained model from a checkpoint alone, to evaluate and to ask."""

from __future__ import annotations

import functools
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from relvit_jax import config as configs
from relvit_jax.data import evaluation_feed, feed
from relvit_jax.training import (
  checkpoint,
  evaluate,
  hardware,
  model_arrays,
  partitioning,
  pieces,
  probe,
)


class Answers(NamedTuple):
  """What the model says of every image of a split.

  Attributes:
    features: with the labels that the images have.
    labels: the class it finds likeliest, or None without a label head.
  """

  features: probe.Features
  labels: Int[np.ndarray, " n"] | None


class Trained:
  """The model of a checkpoint with all that it takes to use it.

  Attributes:
    config: of the run that trained it.
    class_names: of its labels.
    views: how images are shown to it.
    localisation: what its drloc head was asked, if it has one.
    where: the folder of the checkpoint and its step, as printed.
    model: with the trained weights, to call and look into.
  """

  def __init__(self, path: str | os.PathLike[str], which: Any = None):
    """Reads the weights; no optimiser state.

    Args:
      path: a work directory, or a checkpoint in it.
      which: a step, "last" or "best".

    Raises:
      FileNotFoundError: there is no such checkpoint.
      ValueError: it is damaged.
    """
    folder, number = checkpoint.find(path, which)
    meta, params, fixed = checkpoint.read(folder, number)
    self.where = f"{folder}, step {number:,}"
    self.config = configs.from_dict(meta["config"])
    self.class_names = tuple(meta["class_names"])
    self.views = pieces.make_views(self.config, meta["mean"], meta["std"])
    self.localisation = pieces.localisation_of(self.config)
    batch = self.config.eval_batch_size
    self._mesh = partitioning.mesh_for(batch)
    model = nnx.eval_shape(
      lambda: pieces.create_model(
        self.config,
        self.views,
        len(self.class_names),
        nnx.Rngs(0),
        hardware.kind_of(self._mesh.devices.flat[0]),
      )
    )
    self._graphdef, _, _ = model_arrays.split_model(
      model, heads_only=self.config.freeze_backbone
    )
    same = partitioning.replicated(self._mesh)
    self._params, self._fixed = jax.device_put((params, fixed), same)
    self.model = model_arrays.merge_model(
      self._graphdef, self._params, self._fixed
    )

  def evaluate(self, split: feed.Examples) -> dict[str, float]:
    """Losses and metrics on a split."""
    return self._evaluate(self._params, self._fixed, self._batches(split))

  def answers(self, split: feed.Examples) -> Answers:
    """Features and classes of every image of a split, in its order."""
    features, found, labels = [], [], []
    for batch in self._batches(split):
      kept = np.asarray(batch["mask"])
      values, scores = self._ask(self._params, self._fixed, batch)
      features.append(np.asarray(values)[kept])
      labels.append(np.asarray(batch["label"])[kept])
      if scores is not None:
        found.append(np.asarray(jnp.argmax(scores, axis=-1))[kept])
    return Answers(
      probe.Features(np.concatenate(features), np.concatenate(labels)),
      np.concatenate(found) if found else None,
    )

  def outputs(self, batch: feed.Batch) -> dict[str, Array]:
    """What every head says of a few images.

    Args:
      batch: "image" and, where images were squashed, "size".
    """
    return self.model(self.views.evaluation(jax.tree.map(jnp.asarray, batch)))

  def _batches(self, split: feed.Examples) -> Any:
    return evaluation_feed.batches(
      split,
      self.config.eval_batch_size,
      self.config.data.num_workers,
      self._mesh,
    )

  @functools.cached_property
  def _evaluate(self) -> evaluate.Evaluate:
    grid_size = self.model.grid_size
    return evaluate.make_evaluate(
      self._graphdef,
      pieces.evaluation_objective(self.config, grid_size),
      self.views.evaluation,
      grid_size,
      self._mesh,
      self.localisation,
    )

  @functools.cached_property
  def _ask(self) -> Any:
    """(params, fixed, batch) → (features, label scores or None)."""

    def ask(
      params: model_arrays.Params, fixed: model_arrays.Params, batch: feed.Batch
    ) -> tuple[Float[Array, "B F"], Array | None]:
      model = model_arrays.merge_model(self._graphdef, params, fixed)
      tokens = model.backbone(self.views.evaluation(batch))
      if "label" not in model.heads:
        # Nobody taught the class token anything: the mean of the patches.
        return jnp.mean(tokens.patches, axis=1), None
      features = model.backbone.features(tokens)
      return features, model.heads["label"](features)

    return jax.jit(partitioning.on_mesh(ask, self._mesh))


def confused(
  found: Int[np.ndarray, " n"],
  labels: Int[np.ndarray, " n"],
  num_classes: int,
) -> Int[np.ndarray, "classes classes"]:
  """How many images of each class (rows) were taken for which (columns)."""
  counts = np.zeros((num_classes, num_classes), np.int64)
  known = labels >= 0
  np.add.at(counts, (labels[known], found[known]), 1)
  return counts


def per_class(
  found: Int[np.ndarray, " n"],
  labels: Int[np.ndarray, " n"],
  class_names: tuple[str, ...],
) -> dict[str, float]:
  """Share of each class's images that were recognised; NaN of none."""
  result = {}
  for index, name in enumerate(class_names):
    of_class = found[labels == index]
    share = (of_class == index).mean() if len(of_class) else np.nan
    result[name] = float(share)
  return result
