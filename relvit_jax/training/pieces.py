"""The pieces of a stage, each made from a config."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import optax
from flax import nnx

from relvit_jax.data import views
from relvit_jax.models import relvit, variants
from relvit_jax.training import (
  drloc,
  hardware,
  objectives,
  optimizer,
  pair_blocks,
  step,
)
from relvit_jax.training import localisation as localisations


def make_optimizer(
  settings: Any, num_steps: int
) -> optax.GradientTransformation:
  """The optimiser of a config's group `optimizer`, for a run so long."""
  rates = settings.lr, settings.end_lr, num_steps
  if settings.schedule == "paper":
    schedule = optimizer.paper_schedule(*rates)
  else:
    warmup_steps = int(settings.warmup_share * num_steps)
    schedule = optimizer.cosine_schedule(
      *rates, warmup_steps, settings.warmup_lr
    )
  return optimizer.adamw(
    schedule,
    settings.weight_decay,
    settings.clip_norm,
    decay_all=settings.decay_all,
  )


def localisation_of(config: Any) -> localisations.Localisation | None:
  """What is asked of the drloc head, where the config has one."""
  if "drloc" not in config.tasks:
    return None
  asked = config.loss.drloc
  return localisations.Localisation(
    asked.num_pairs, asked.mode, asked.use_abs, asked.normalise_targets
  )


def training_objective(
  config: Any, grid_size: tuple[int, int], num_steps: int
) -> step.Objective:
  """The losses of a config, for a run so long."""
  losses = functools.partial(
    objectives.losses,
    grid_size=grid_size,
    localisation=localisation_of(config),
    label_smoothing=config.loss.label_smoothing,
    **_relation(config),
  )
  weights = config.loss.weights.to_dict()
  localise = drloc.weight_schedule(
    config.loss.weights.drloc,
    num_steps,
    int(config.loss.drloc.warmup_share * num_steps),
  )

  def objective(*given: Any, step: Any, **seen: Any) -> Any:
    return losses(*given, weights=weights | {"drloc": localise(step)}, **seen)

  return objective


def make_pair_blocks(
  config: Any, grid_size: Sequence[int], train: bool
) -> pair_blocks.PairBlocks:
  """How pair losses and metrics are computed, with what is for training."""
  rows, columns = grid_size
  block = pair_blocks.rows_of(config.loss.pair_block, rows * columns)
  return pair_blocks.PairBlocks(block, **(_relation(config) if train else {}))


def _relation(config: Any) -> dict[str, float]:
  """What is for training alone of the relation loss."""
  loss = config.loss
  dropout = loss.relation_dropout
  if loss.relation_dropout_needs_smoothing and not loss.relation_smoothing:
    dropout = 0.0
  return {
    "relation_smoothing": loss.relation_smoothing,
    "relation_dropout": dropout,
  }


def evaluation_objective(
  config: Any, grid_size: tuple[int, int]
) -> step.Objective:
  """The losses of a config, with its weights but nothing that is for training:

  neither smoothing nor dropout, and the drloc weight where its ramp is highest.
  """
  return functools.partial(
    objectives.losses,
    grid_size=grid_size,
    weights=config.loss.weights.to_dict(),
    localisation=localisation_of(config),
  )


def make_views(config: Any, mean: Any, std: Any) -> views.Views:
  """How a config shows images to the model, in patches that its heads see."""
  augment = config.augment.to_dict()
  del augment["repeats"]  # Of the feed.
  return views.Views(
    image_size=config.data.image_size,
    patch_size=variants.shown_patch(
      config.model.backbone, config.model.patch_size, config.model.depth
    ),
    mean=tuple(mean),
    std=tuple(std),
    **augment,
  )


def create_model(
  config: Any,
  view: views.Views,
  num_classes: int,
  rngs: nnx.Rngs,
  kind: str,
) -> relvit.RelViT:
  """The model of a config, with random weights, for a kind of device."""
  sizes = {
    name: value for name, value in config.model.items() if value is not None
  } | hardware.choices(config, view.model_size, kind)
  if "drloc" in config.tasks:
    asked = config.loss.drloc
    sizes |= {"drloc_mode": asked.mode, "drloc_abs": asked.use_abs}
  return relvit.create_model(
    **sizes,
    tasks=tuple(config.tasks),
    num_classes=num_classes,
    image_size=view.model_size,
    rngs=rngs,
  )
