"""The parts of a training step, each by itself, ready to be measured.

Every part takes many steps in one dispatch, as training does: a dispatch costs
something of its own, on a CPU above all the first touch of its memory.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from relvit_jax.analysis import part, stand_ins
from relvit_jax.data import feed, views
from relvit_jax.models import layers
from relvit_jax.training import (
  metrics,
  model_arrays,
  optimizer,
  partitioning,
  pieces,
  repeating,
  stacking,
  step,
)
from relvit_jax.training import stage as stages

# XLA's, for GPUs: no graphs of kernels.
_APART = {"xla_gpu_enable_command_buffer": ""}


class Parts:
  """Makes the parts of a stage; each compiles what it needs."""

  def __init__(self, stage: stages.Stage):
    self._stage = stage
    self._platform = partitioning.platform(stage.mesh)
    self._bare_made: dict[bool, tuple[Any, list[step.TrainState], Any]] = {}
    self._words = np.asarray(
      jax.device_get(step.order_words(stage.init(0).key))
    )
    block = stage.feed.block(self._words, 0, 1)
    draw = jax.jit(
      lambda data: stage.feed.batches(
        jnp.asarray(self._words), data, jnp.int32(0)
      )(jnp.int32(0))
    )
    sharding = partitioning.batch_sharding(stage.mesh)
    self._batch = jax.device_put(draw(block), sharding)
    self._shown = jax.device_put(jax.jit(self._show)(0), sharding)

  def _show(self, i: Any) -> views.Shown:
    keys = jax.random.split(
      jax.random.fold_in(jax.random.key(1), i), len(self._batch["image"])
    )
    return self._stage.views.training(keys, self._batch)

  def make(self, name: str) -> part.Part:
    """The part of this name, of `NAMES`."""
    return getattr(self, name)()

  def step(self) -> part.Part:
    """Forward and backward pass, losses, metrics, update: all but the images.

    They were drawn and augmented before.
    """
    return self._many(False)

  def traced(self) -> part.Part:
    """The same, of which a profiler can tell every operation.

    A GPU takes a loop as a graph, and a trace has only the whole of it.
    """
    return self._many(self._platform == "gpu")

  def _many(self, apart: bool) -> part.Part:
    most = self._stage.feed.max_steps
    least = most if repeating.is_fixed(self._platform) else 1
    return part.stepping("step", *self._bare(apart), most, least)

  def alone(self) -> part.Part:
    """The same program, one step a dispatch."""
    return part.stepping("alone", *self._bare(), 1)

  def _bare(
    self, apart: bool = False
  ) -> tuple[Any, list[step.TrainState], Any]:
    """(program, the state that its last call left, data)."""
    if apart not in self._bare_made:
      stage = self._stage
      data = {
        "image": self._shown.images,
        "label": self._batch["label"],
        "shown": self._shown,
      }
      state = stage.init(0)
      program = repeating.jit(
        step.make_train_steps(
          stage.train_step(lambda keys, batch: batch["shown"]),
          stand_ins.Same(stage.feed, stage.mesh),
          stage.mesh,
        ),
        self._platform,
        out_shardings=(
          jax.tree.map(lambda leaf: leaf.sharding, stage.state_shapes),
          partitioning.replicated(stage.mesh),
        ),
        donate_argnums=0,
        compiler_options=_APART if apart else None,
      )
      self._bare_made[apart] = program, [state], data
    return self._bare_made[apart]

  def end_to_end(self) -> part.Part:
    """As a run trains: feed, augmentation, step, and metrics to the host."""
    stage = self._stage
    state, done = stage.init(0), 0
    most = stage.feed.max_steps

    def call(count: int) -> None:
      nonlocal state, done
      waiting: Any = None
      for size in part.dispatches(count, most):
        data = stage.feed.block(self._words, done, size)
        state, sums = stage.train_steps(state, data, np.int32(size))
        done += size
        if waiting is not None:
          metrics.means([waiting])
        waiting = sums
      metrics.means([waiting])

    def compiled(count: int) -> Any:
      return stage.train_steps.lower(
        state, stage.feed.outline(), np.int32(min(count, most))
      ).compile()

    return part.Part("end_to_end", call, 8 * most, most, compiled)

  def augmentation(self) -> part.Part:
    """From stored pixels to what the model is shown."""

    def many(batch: Any, shown: Any, seed: Array, count: Any) -> Any:
      def one(i: Array, shown: Any) -> Any:
        del shown
        keys = jax.random.split(
          jax.random.fold_in(jax.random.key(1), seed + i), len(batch["image"])
        )
        return self._stage.views.training(keys, batch)

      return jax.lax.fori_loop(0, count, one, shown)

    return part.carried("augmentation", many, (self._batch,), self._shown)

  def heads(self) -> part.Part:
    """Heads, losses and metrics, forward and backward, on given tokens."""
    stage = self._stage
    state = stage.init(0)
    tokens = self._tokens(state)

    def many(state: Any, shown: Any, carry: Any, seed: Array, count: Any):
      def one(i: Array, carry: Any) -> Any:
        gradients, measured = jax.grad(self._of_heads, has_aux=True)(
          carry[0], state, shown, jax.random.key(seed + i)
        )
        # Whatever follows from them cannot be left out, nor computed once.
        moved = jax.tree.map(lambda x, g: x - 1e-3 * g, carry[0], gradients)
        return moved, measured

      return jax.lax.fori_loop(0, count, one, carry)

    given = state.params["heads"], tokens
    shapes = jax.eval_shape(
      self._of_heads, given, state, self._shown, jax.random.key(0)
    )[1]
    measured = jax.jit(
      lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    )()
    return part.carried("heads", many, (state, self._shown), (given, measured))

  def _tokens(self, state: step.TrainState) -> layers.Tokens:
    """Random ones, of the shapes and types that the backbone gives."""
    shapes = jax.eval_shape(
      lambda state: self._stage.model(state).backbone(self._shown.images), state
    )
    keys = iter(jax.random.split(jax.random.key(2), 3))
    made = jax.tree.map(
      lambda leaf: jax.random.normal(next(keys), leaf.shape, leaf.dtype), shapes
    )
    return jax.device_put(made, partitioning.batch_sharding(self._stage.mesh))

  def _of_heads(
    self, given: Any, state: step.TrainState, shown: views.Shown, key: Array
  ) -> tuple[Array, Any]:
    stage, (params, tokens) = self._stage, given
    model = model_arrays.merge_model(
      stage.graphdef, dict(state.params) | {"heads": params}, state.fixed
    )
    stand_in: Any = stand_ins.Given(model.backbone, tokens)
    model.backbone = stand_in
    pairs = None
    if stage.localisation:
      pairs = stage.localisation.draw(key, len(shown.images), stage.grid_size)
    blocks = stage.pair_blocks(train=True)
    outputs = model(
      shown.images, train=True, pairs=pairs, dense=blocks.are_dense
    )
    outputs = blocks.answer(outputs, stage.grid_size, shown.places, key)
    asked = {"permutation": shown.places, "pairs": pairs}
    labels = {"label": self._batch["label"]}
    losses = stage.objective()(
      outputs, labels, **asked, key=key, step=state.step
    )
    measured = metrics.measure(
      outputs, labels, stage.grid_size, **asked, localisation=stage.localisation
    )
    return losses["total"], (losses, measured)

  def optimizer(self) -> part.Part:
    """The gradient's norm, AdamW's update, and the average of the weights."""
    stage = self._stage
    settings = stage.config.optimizer
    tx = pieces.make_optimizer(settings, stage.num_steps)
    decay = settings.ema_decay
    average = optimizer.averaging(decay) if decay is not None else None
    state = stage.init(0)
    if stacking.pays(self._platform):
      state = jax.jit(
        lambda state: stacking.within(stacking.together, state, state.params)
      )(state)
    gradients = jax.jit(
      lambda params: jax.tree.map(lambda x: jnp.full_like(x, 1e-3), params)
    )(state.params)

    def many(gradients: Any, carry: Any, seed: Array, count: Any) -> Any:
      def one(i: Array, carry: Any) -> Any:
        params, opt_state, mean, _ = carry
        # Other ones in every step, or their norm would be computed once.
        size = 1 + 1e-3 * (seed + i)
        scaled = jax.tree.map(lambda g: g * size, gradients)
        norm = optax.tree.norm(scaled)
        updates, opt_state = tx.update(scaled, opt_state, params)
        params = optax.apply_updates(params, updates)
        mean = average(mean, params, i) if average else mean
        return params, opt_state, mean, norm

      return jax.lax.fori_loop(0, count, one, carry)

    start = state.params, state.opt_state, state.average, jnp.float32(0)
    return part.carried("optimizer", many, (gradients,), start)

  def feed(self) -> part.Part:
    """Batches of stored pixels: drawn on the device, or sent to it."""
    stage, done = self._stage, 0
    if isinstance(stage.feed, feed.Streaming):

      def call(count: int) -> Any:
        nonlocal done
        data = None
        for size in part.dispatches(count, stage.feed.max_steps):
          data = stage.feed.block(self._words, done, size)
          done += size
        return data

      return part.Part("feed", call, 8 * stage.feed.max_steps)

    def many(data: Any, batch: Any, seed: Array, count: Any) -> Any:
      batch_of = stage.feed.batches(jnp.asarray(self._words), data, seed)
      return jax.lax.fori_loop(0, count, lambda i, _: batch_of(i), batch)

    most = stage.feed.max_steps
    data = stage.feed.block(self._words, 0, 1)
    return part.carried("feed", many, (data,), self._batch, most, most)


# In the order of a table.
NAMES = (
  "step",
  "alone",
  "augmentation",
  "heads",
  "optimizer",
  "feed",
  "end_to_end",
)
