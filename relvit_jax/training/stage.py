"""All that one stage of training needs, made and compiled once from a config.

A stage is a model with its tasks, an optimiser and a feed; `pretrain`,
`finetune`, `joint`, `supervised` and `linear` differ in their config alone. One
stage serves any number of runs: seed and starting weights are arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from relvit_jax.data import evaluation_feed, feed, statistics
from relvit_jax.models import relvit
from relvit_jax.training import (
  evaluate,
  hardware,
  model_arrays,
  optimizer,
  pair_blocks,
  partitioning,
  pieces,
  preemption,
  repeating,
  step,
)


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
    graphdef: of the model, to merge with arrays (`model_arrays.merge_model`).
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
    self.views = pieces.make_views(config, *colours)
    self.feed = feed.make(
      train,
      batch_size=config.batch_size,
      max_steps=hardware.steps_per_dispatch(
        config,
        self.views.model_size,
        len(self.class_names),
        hardware.kind_of(mesh.devices.flat[0]),
        mesh.size,
      ),
      mesh=mesh,
      num_workers=config.data.num_workers,
      stream=config.data.feed == "streaming",
      repeats=config.augment.repeats,
    )
    self.localisation = pieces.localisation_of(config)
    model = nnx.eval_shape(lambda: self._create(nnx.Rngs(0)))
    self.grid_size = model.grid_size
    self.graphdef, _, _ = self._split(model)
    self._optimizer = pieces.make_optimizer(config.optimizer, self.num_steps)
    self._compile()

  def _compile(self) -> None:
    config, mesh, tx = self.config, self.mesh, self._optimizer
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
    replicated = partitioning.replicated(mesh)
    self.train_steps = repeating.jit(
      step.make_train_steps(
        self.train_step(self.views.training), self.feed, mesh
      ),
      partitioning.platform(mesh),
      out_shardings=(shardings, replicated),
      donate_argnums=0,
    )
    self._evaluate = evaluate.make_evaluate(
      self.graphdef,
      pieces.evaluation_objective(config, self.grid_size),
      self.views.evaluation,
      self.grid_size,
      mesh,
      self.localisation,
      self.pair_blocks(train=False),
    )

  def train_step(
    self, augment: step.Augment
  ) -> Callable[[step.TrainState, feed.Batch], tuple[step.TrainState, Any]]:
    """One step as a pure function, whose batches are shown by `augment`."""
    decay = self.config.optimizer.ema_decay
    made = step.make_train_step(
      self.graphdef,
      self._optimizer,
      self.objective(),
      augment,
      self.grid_size,
      average=None if decay is None else optimizer.averaging(decay),
      localisation=self.localisation,
      blocks=self.pair_blocks(train=True),
    )
    return partitioning.on_mesh(made, self.mesh)

  def init(self, seed: int) -> step.TrainState:
    """A fresh state, drawn from the seed and laid out over the mesh."""
    return self._init(jax.random.key(seed))

  def block_end(self, done: int) -> int:
    """The step at which the dispatch that begins at step `done` ends.

    From one evaluation to the next all are as long, but for the last, so that
    few lengths need a program where each has its own.
    """
    begin = done - done % self.eval_every
    end = min(begin + self.eval_every, self.num_steps)
    count = -(-(end - begin) // self.feed.max_steps)
    length = -(-(end - begin) // count)
    return min(done - (done - begin) % length + length, end)

  def evaluate(
    self,
    state: step.TrainState,
    split: feed.Examples,
    stop: preemption.Stop = preemption.never,
  ) -> dict[str, float]:
    """Metrics and losses on any split of the same image size.

    Of the averaged weights, where an average is kept.

    Raises:
      PreemptedError: `stop`, asked before every batch, said so.
    """
    batches = evaluation_feed.batches(
      split,
      self.config.eval_batch_size,
      self.config.data.num_workers,
      self.mesh,
    )
    return self._evaluate(
      state.weights, state.fixed, preemption.unless(stop, batches)
    )

  def model(self, state: step.TrainState) -> relvit.RelViT:
    """The model with the weights of a state, to call and look into."""
    return model_arrays.merge_model(self.graphdef, state.weights, state.fixed)

  def objective(self) -> step.Objective:
    """The losses of the config, for training."""
    return pieces.training_objective(
      self.config, self.grid_size, self.num_steps
    )

  def pair_blocks(self, train: bool) -> pair_blocks.PairBlocks:
    """How pair losses and metrics are computed, with what is for training."""
    return pieces.make_pair_blocks(self.config, self.grid_size, train)

  def _create(self, rngs: nnx.Rngs) -> relvit.RelViT:
    return pieces.create_model(
      self.config,
      self.views,
      len(self.class_names),
      rngs,
      hardware.kind_of(self.mesh.devices.flat[0]),
    )

  def _split(self, model: relvit.RelViT) -> tuple[Any, Any, Any]:
    return model_arrays.split_model(
      model, heads_only=self.config.freeze_backbone
    )
