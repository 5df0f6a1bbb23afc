"""All that one stage of training needs, made and compiled once from a config.

A stage is a model with its tasks, an optimiser and a feed; `pretrain`,
`finetune`, `joint` and `supervised` differ in their config alone. One stage
serves any number of runs: seed and starting weights are arguments.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from relvit_jax.data import augment, feed, sources
from relvit_jax.models import relvit
from relvit_jax.training import (
  evaluate,
  objectives,
  optimizer,
  partitioning,
  step,
)


class Stage:
  """The compiled functions of a stage.

  Attributes:
    config: as given.
    num_steps: how long a run is.
    grid_size: (rows, columns) of patches.
    graphdef: of the model, to merge with arrays (`step.merge_model`).
  """

  def __init__(
    self,
    config: Any,
    splits: dict[str, sources.Split],
    mesh: Mesh,
  ):
    """Compiles nothing yet; that happens at the first call of each function.

    Args:
      config: a ConfigDict with the keys of `configs/common.py`.
      splits: of the data set, train among them.
      mesh: the devices, from `partitioning.make_mesh`.
    """
    for key in ("batch_size", "eval_batch_size"):
      partitioning.check_batch(key, config[key], mesh)
    _check_steps(config)
    self.config = config
    self.mesh = mesh
    self.num_steps = config.num_steps
    self._splits = splits
    mean, std = splits["train"].statistics()
    self._normalise = functools.partial(augment.normalise, mean=mean, std=std)

    model = nnx.eval_shape(lambda: self._create(nnx.Rngs(0)))
    self.graphdef, _, _ = step.split_model(model)
    self.grid_size = model.grid_size
    tx = optimizer.paper_adamw(
      optimizer.paper_schedule(
        config.optimizer.lr, config.optimizer.end_lr, config.num_steps
      ),
      config.optimizer.weight_decay,
      config.optimizer.clip_norm,
    )
    init = step.make_init(self._create, tx)
    self._shardings = step.state_shardings(
      jax.eval_shape(init, jax.random.key(0)), tx, mesh
    )
    self._init = jax.jit(init, out_shardings=self._shardings)
    train_step = step.make_train_step(
      self.graphdef, tx, self._objective(), self._augment, self.grid_size
    )
    replicated = partitioning.replicated(mesh)
    self.train_steps = jax.jit(
      step.make_train_steps(
        train_step, config.steps_per_dispatch, config.batch_size, mesh
      ),
      in_shardings=(self._shardings, replicated),
      out_shardings=(self._shardings, replicated),
      donate_argnums=0,
    )
    self._evaluate = evaluate.make_evaluate(
      self.graphdef, self._normalise, self.grid_size, mesh
    )

  def init(self, seed: int) -> step.TrainState:
    """A fresh state, drawn from the seed and laid out over the mesh."""
    return self._init(jax.random.key(seed))

  @functools.cached_property
  def train_data(self) -> feed.Batch:
    """The training split on every device, as uint8."""
    split = self._splits["train"]
    return jax.device_put(
      {"image": split.images, "label": split.labels},
      partitioning.replicated(self.mesh),
    )

  def evaluate(
    self, state: step.TrainState, split: sources.Split
  ) -> dict[str, float]:
    """Metrics on any split of the same image size."""
    batches = feed.evaluation_batches(split, self.config.eval_batch_size)
    return self._evaluate(state.params, state.fixed, batches)

  def model(self, state: step.TrainState) -> relvit.RelViT:
    """The model with the weights of a state, to call and look into."""
    return step.merge_model(self.graphdef, state.params, state.fixed)

  def normalise(self, images: Array) -> Array:
    """Pixels 0..255 → what the model was trained on."""
    return self._normalise(images)

  def _create(self, rngs: nnx.Rngs) -> relvit.RelViT:
    return relvit.create_model(
      **self.config.model,
      tasks=tuple(self.config.tasks),
      num_classes=len(self._splits["train"].class_names),
      image_size=self._splits["train"].images.shape[1:3],
      rngs=rngs,
    )

  def _objective(self) -> step.Objective:
    loss = self.config.loss
    return functools.partial(
      objectives.losses,
      grid_size=self.grid_size,
      weights=loss.weights.to_dict(),
      label_smoothing=loss.label_smoothing,
      relation_smoothing=loss.relation_smoothing,
      relation_dropout=loss.relation_dropout,
    )

  def _augment(self, key: Array, images: Array) -> tuple[Array, Array | None]:
    crop_key, order_key = jax.random.split(key)
    images = augment.pad_crop(crop_key, images, self.config.data.crop_padding)
    images = self._normalise(images)
    if not self.config.data.permute_patches:
      return images, None
    return augment.permute_patches(
      order_key, images, self.config.model.patch_size
    )


def _check_steps(config: Any) -> None:
  """Raises unless dispatches and evaluations end where the run can see it."""
  dispatch = config.steps_per_dispatch
  if dispatch < 1:
    raise ValueError(f"steps_per_dispatch={dispatch} must be at least 1")
  for key in ("num_steps", "eval_every"):
    if config[key] < 1 or config[key] % dispatch:
      raise ValueError(
        f"{key}={config[key]} must be a multiple of "
        f"steps_per_dispatch={dispatch}"
      )
