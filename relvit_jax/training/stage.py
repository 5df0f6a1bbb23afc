"""All that one stage of training needs, made and compiled once from a config.

A stage is a model with its tasks, an optimiser and a feed; `pretrain`,
`finetune`, `joint`, `supervised` and `linear` differ in their config alone. One
stage serves any number of runs: seed and starting weights are arguments.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import optax
from flax import nnx
from jax.sharding import Mesh

from relvit_jax.data import feed, statistics, views
from relvit_jax.models import relvit, variants
from relvit_jax.training import (
  drloc,
  evaluate,
  objectives,
  optimizer,
  pair_blocks,
  partitioning,
  step,
)
from relvit_jax.training import localisation as localisations


class Stage:
  """The compiled functions of a stage.

  Attributes:
    config: as given.
    mesh: as given.
    class_names: of the labels.
    localisation: what the drloc head is asked, if there is one.
    views: how batches become what the model sees.
    feed: of the training split.
    num_steps: how long a run is.
    eval_every: steps from one evaluation to the next.
    grid_size: (rows, columns) of the patches that the pair tasks ask about.
    graphdef: of the model, to merge with arrays (`step.merge_model`).
    state_shapes: shape, type and sharding of every leaf of a state.
  """

  def __init__(
    self,
    config: Any,
    train: feed.Examples,
    mesh: Mesh,
    colours: tuple[Any, Any] | None = None,
  ):
    """Compiles nothing yet; that happens at the first call of each function.

    Args:
      config: a ConfigDict with the keys of `configs/common.py`.
      train: the training split.
      mesh: the devices, from `partitioning.make_mesh`.
      colours: mean and standard deviation to normalise with; None for those of
        the config, or of the training split where it has none.
    """
    for key in ("batch_size", "eval_batch_size"):
      partitioning.check_batch(key, config[key], mesh)
    self.config = config
    self.mesh = mesh
    self.class_names = train.class_names
    epoch = -(-len(train) // config.batch_size)
    self.num_steps = config.num_steps or round(config.num_epochs * epoch)
    self.eval_every = config.eval_every or epoch
    if colours is None:
      colours = config.data.mean, config.data.std
    if colours[0] is None:
      colours = statistics.measure(train)
    self.views = make_views(config, *colours)
    self.feed = feed.make(
      train,
      batch_size=config.batch_size,
      max_steps=config.steps_per_dispatch,
      mesh=mesh,
      num_workers=config.data.num_workers,
      stream=config.data.feed == "streaming",
      repeats=config.augment.repeats,
    )
    self.localisation = localisation_of(config)
    model = nnx.eval_shape(lambda: self._create(nnx.Rngs(0)))
    self.grid_size = model.grid_size
    self.graphdef, _, _ = self._split(model)
    self._compile()

  def _compile(self) -> None:
    config, mesh = self.config, self.mesh
    tx = make_optimizer(config.optimizer, self.num_steps)
    decay = config.optimizer.ema_decay
    init = step.make_init(self._create, self._split, tx, decay is not None)
    shapes = jax.eval_shape(init, jax.random.key(0))
    shardings = step.state_shardings(shapes, tx, mesh)
    self.state_shapes = jax.tree.map(
      lambda leaf, sharding: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=sharding
      ),
      shapes,
      shardings,
    )
    self._init = jax.jit(init, out_shardings=shardings)
    rows = pair_blocks.rows_of(
      config.loss.pair_block, self.grid_size[0] * self.grid_size[1]
    )
    train_step = step.make_train_step(
      self.graphdef,
      tx,
      self._objective(),
      self.views.training,
      self.grid_size,
      average=None if decay is None else optimizer.averaging(decay),
      localisation=self.localisation,
      blocks=pair_blocks.PairBlocks(rows, **self._relation()),
    )
    replicated = partitioning.replicated(mesh)
    self.train_steps = jax.jit(
      step.make_train_steps(train_step, self.feed, mesh),
      out_shardings=(shardings, replicated),
      donate_argnums=0,
    )
    self._evaluate = evaluate.make_evaluate(
      self.graphdef,
      evaluation_objective(config, self.grid_size),
      self.views.evaluation,
      self.grid_size,
      mesh,
      self.localisation,
      pair_blocks.PairBlocks(rows),
    )

  def init(self, seed: int) -> step.TrainState:
    """A fresh state, drawn from the seed and laid out over the mesh."""
    return self._init(jax.random.key(seed))

  def block_end(self, done: int) -> int:
    """The step at which the dispatch that begins at step `done` ends."""
    every = self.feed.max_steps, self.eval_every
    ends = [(done // n + 1) * n for n in every]
    return min(*ends, self.num_steps)

  def evaluate(
    self, state: step.TrainState, split: feed.Examples
  ) -> dict[str, float]:
    """Metrics and losses on any split of the same image size.

    Of the averaged weights, where an average is kept.
    """
    batches = feed.evaluation_batches(
      split, self.config.eval_batch_size, self.config.data.num_workers
    )
    return self._evaluate(state.weights, state.fixed, batches)

  def model(self, state: step.TrainState) -> relvit.RelViT:
    """The model with the weights of a state, to call and look into."""
    return step.merge_model(self.graphdef, state.weights, state.fixed)

  def _create(self, rngs: nnx.Rngs) -> relvit.RelViT:
    return create_model(self.config, self.views, len(self.class_names), rngs)

  def _split(self, model: relvit.RelViT) -> tuple[Any, Any, Any]:
    return step.split_model(model, heads_only=self.config.freeze_backbone)

  def _relation(self) -> dict[str, float]:
    """What is for training alone of the relation loss."""
    loss = self.config.loss
    dropout = loss.relation_dropout
    if loss.relation_dropout_needs_smoothing and not loss.relation_smoothing:
      dropout = 0.0
    return {
      "relation_smoothing": loss.relation_smoothing,
      "relation_dropout": dropout,
    }

  def _objective(self) -> step.Objective:
    loss = self.config.loss
    losses = functools.partial(
      objectives.losses,
      grid_size=self.grid_size,
      localisation=self.localisation,
      label_smoothing=loss.label_smoothing,
      **self._relation(),
    )
    weights = loss.weights.to_dict()
    localise = drloc.weight_schedule(
      loss.weights.drloc,
      self.num_steps,
      int(loss.drloc.warmup_share * self.num_steps),
    )

    def objective(*given: Any, step: Any, **seen: Any) -> Any:
      return losses(*given, weights=weights | {"drloc": localise(step)}, **seen)

    return objective


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
  config: Any, view: views.Views, num_classes: int, rngs: nnx.Rngs
) -> relvit.RelViT:
  """The model of a config, with random weights."""
  sizes = {
    name: value for name, value in config.model.items() if value is not None
  }
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
