"""One training step as a pure function, compiled over a device mesh."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray

from relvit_jax.data import feed, mixing, views
from relvit_jax.models.relvit import RelViT
from relvit_jax.training import localisation as localisations
from relvit_jax.training import (
  metrics,
  model_arrays,
  pair_blocks,
  partitioning,
  stacking,
)
from relvit_jax.training.model_arrays import Params

# What a run draws from its key, each from a key of its own.
_ORDER, _NOISE = 0, 1

# (a key an image, batch) → what the model is shown.
Augment = Callable[[PRNGKeyArray, feed.Batch], views.Shown]
# (average, params, steps taken) → the next average.
Average = Callable[[Params, Params, Array], Params]
# (outputs, labels, permutation=, pairs=, key=, step=) → losses and "total".
Objective = Callable[..., dict[str, Array]]


@struct.dataclass
class TrainState:
  """All that a step reads and writes: a pure tree of arrays.

  Or, of the same form, a tree of their shapes or of their shardings.

  Attributes:
    step: how many steps were taken, int32.
    key: of the run; all randomness is a function of it and of `step`.
    params: what is trained, as nested dicts.
    fixed: the model's arrays that are not trained.
    opt_state: of the optimiser.
    average: the moving average of `params`; empty where none is kept.
  """

  step: Any
  key: Any
  params: Params
  fixed: Params
  opt_state: optax.OptState
  average: Params = struct.field(default_factory=dict)

  @property
  def weights(self) -> Params:
    """What the trained model answers with: the average where there is one."""
    return self.average or self.params


def make_init(
  create: Callable[[nnx.Rngs], RelViT],
  split: Callable[[RelViT], tuple[Any, Params, Params]],
  optimizer: optax.GradientTransformation,
  keep_average: bool = False,
) -> Callable[[PRNGKeyArray], TrainState]:
  """key → fresh state: pure, so that it can be compiled and sharded."""

  def init(key: PRNGKeyArray) -> TrainState:
    init_key, run_key = jax.random.split(key)
    _, params, fixed = split(create(nnx.Rngs(init_key)))
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      key=run_key,
      params=params,
      fixed=fixed,
      opt_state=optimizer.init(params),
      average=jax.tree.map(jnp.copy, params) if keep_average else {},
    )

  return init


def make_train_step(
  graphdef: Any,
  optimizer: optax.GradientTransformation,
  objective: Objective,
  augment: Augment,
  grid_size: tuple[int, int],
  *,
  average: Average | None = None,
  localisation: localisations.Localisation | None = None,
  blocks: pair_blocks.PairBlocks = pair_blocks.DENSE,
) -> Callable[[TrainState, feed.Batch], tuple[TrainState, metrics.Metrics]]:
  """(state, batch) → (next state, metrics as sums and counts).

  A batch is {"image": uint8 [B,H,W,3], "label": [B]}. The metrics are
  `loss_<task>` and `loss_total`, those of `metrics.measure`, and
  `gradient_norm` before clipping. What is learnt of a mixed image: its label
  in shares, and of its patches what would be learnt of any, as mixing leaves
  every pixel at its place; its label metrics count the larger share.

  Args:
    graphdef: of the model.
    optimizer: of the parameters.
    objective: what to make small.
    augment: how a batch is shown.
    grid_size: (rows, columns) of the patches that the heads see.
    average: how the average of the weights moves on, where one is kept.
    localisation: which pairs the drloc head is asked about, if there is one.
    blocks: how the pair tasks are judged.
  """
  measure = _make_measure(graphdef, objective, grid_size, localisation, blocks)

  def train_step(
    state: TrainState, batch: feed.Batch
  ) -> tuple[TrainState, metrics.Metrics]:
    keys = jax.random.split(noise_key(state.key, state.step), 4)
    # And so does every image of the batch, whoever else is in it.
    augment_keys = jax.random.split(keys[0], len(batch["image"]))
    shown = augment(augment_keys, batch)
    gradients, measured = jax.grad(measure, has_aux=True)(
      stacking.apart(state.params), state, batch["label"], shown, keys[1:]
    )
    if stacking.are_together(state.params):
      gradients = stacking.together(gradients)
    with jax.named_scope("optimizer"):
      norm = optax.tree.norm(gradients)
      measured["gradient_norm"] = (norm, jnp.ones_like(norm))
      updates, opt_state = optimizer.update(
        gradients, state.opt_state, state.params
      )
      params: Any = optax.apply_updates(state.params, updates)
    return dataclasses.replace(
      state,
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      average=average(state.average, params, state.step) if average else {},
    ), measured

  return train_step


def _make_measure(
  graphdef: Any,
  objective: Objective,
  grid_size: tuple[int, int],
  localisation: localisations.Localisation | None,
  blocks: pair_blocks.PairBlocks,
) -> Callable[..., tuple[Array, metrics.Metrics]]:
  """(params, state, labels, what is shown, three keys) → (loss, metrics)."""

  def measure(
    params: Params,
    state: TrainState,
    labels: Array,
    shown: views.Shown,
    keys: Array,
  ) -> tuple[Array, metrics.Metrics]:
    model = model_arrays.merge_model(graphdef, params, state.fixed)
    images, permutation, mixed = shown
    pairs = None
    if localisation:
      pairs = localisation.draw(keys[2], len(images), grid_size)
    rngs = nnx.Rngs(dropout=keys[0])
    outputs = model(
      images, train=True, rngs=rngs, pairs=pairs, dense=blocks.are_dense
    )
    outputs = blocks.answer(outputs, grid_size, permutation, keys[1])
    if mixed is not None and "label" in outputs:
      num_classes = outputs["label"].shape[-1]
      labels = mixing.soft_labels(labels, num_classes, mixed)
    asked = {"permutation": permutation, "pairs": pairs}
    told = {"label": labels}
    losses = objective(outputs, told, **asked, key=keys[1], step=state.step)
    measured = metrics.measure(
      outputs, told, grid_size, **asked, localisation=localisation
    )
    measured |= metrics.of_losses(losses, len(images))
    return losses["total"], measured

  return measure


def make_train_steps(
  train_step: Callable[
    [TrainState, feed.Batch], tuple[TrainState, metrics.Metrics]
  ],
  training_feed: feed.Feed,
  mesh: Mesh,
) -> Callable[
  [TrainState, feed.Batch, Any], tuple[TrainState, metrics.Metrics]
]:
  """(state, a block of the feed, number of steps) → (state, metrics).

  Batches are drawn and steps taken in one dispatch, so that the host never
  stands between two steps; meanwhile vectors are stacked, where that pays. How
  many steps is an argument, an int32 of at most the feed's `max_steps`, for
  `repeating.jit`; where dispatches begin changes no number. Metrics are
  [max_steps] each; the count of a step that was not taken is 0.
  """
  sharding = partitioning.batch_sharding(mesh)
  is_stacked = stacking.pays(partitioning.platform(mesh))

  def train_steps(
    state: TrainState, data: feed.Batch, num_steps: Any
  ) -> tuple[TrainState, metrics.Metrics]:
    batch_of = training_feed.batches(order_words(state.key), data, state.step)
    if is_stacked:
      state = stacking.within(stacking.together, state, state.params)
    # Traced once, for its shapes and for the loop.
    take_step = jax.jit(train_step)

    def one(
      i: Array, carry: tuple[TrainState, metrics.Metrics]
    ) -> tuple[TrainState, metrics.Metrics]:
      state, record = carry
      batch = jax.lax.with_sharding_constraint(batch_of(i), sharding)
      state, measured = take_step(state, batch)
      return state, jax.tree.map(
        lambda all_steps, value: all_steps.at[i].set(value), record, measured
      )

    _, shapes = jax.eval_shape(take_step, state, batch_of(state.step))
    record = jax.tree.map(
      lambda leaf: jnp.zeros((training_feed.max_steps,), leaf.dtype), shapes
    )
    state, record = jax.lax.fori_loop(0, num_steps, one, (state, record))
    if is_stacked:
      state = stacking.within(stacking.apart, state, state.params)
    return state, record

  return train_steps


def noise_key(key: Array, step: Any) -> Array:
  """For all that a step draws; resuming never reuses one."""
  return jax.random.fold_in(jax.random.fold_in(key, _NOISE), step)


def order_words(key: Array) -> Array:
  """What a run's order of examples follows from, by its key."""
  return feed.words_of(jax.random.fold_in(key, _ORDER))


def state_shardings(state: Any, optimizer: Any, mesh: Mesh) -> Any:
  """A sharding for every leaf of a state (arrays or shapes)."""
  params = partitioning.params_shardings(state.params, mesh)
  same = partitioning.replicated(mesh)
  return TrainState(
    step=same,
    key=same,
    params=params,
    fixed=jax.tree.map(lambda _: same, state.fixed),
    # The moments lie where their parameters lie.
    opt_state=optax.tree.map_params(
      optimizer,
      lambda _, sharding: sharding,
      state.opt_state,
      params,
      transform_non_params=lambda _: same,
    ),
    average=params if state.average else {},
  )
