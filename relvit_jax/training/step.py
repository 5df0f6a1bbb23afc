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

from relvit_jax.data import feed
from relvit_jax.models.relvit import RelViT
from relvit_jax.training import metrics, partitioning

Params = dict[str, Any]

# What a run draws from its key, each from a key of its own.
_ORDER, _NOISE = 0, 1

# (key, uint8 images) → (normalised images, permutation of patches or None).
Augment = Callable[[PRNGKeyArray, Array], tuple[Array, Array | None]]
# (outputs, labels, permutation, key) → loss per task and "total".
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
  """

  step: Any
  key: Any
  params: Params
  fixed: Params
  opt_state: optax.OptState


def split_model(model: RelViT) -> tuple[Any, Params, Params]:
  """(graphdef, trained arrays, fixed arrays), the arrays as nested dicts."""
  graphdef, params, fixed = nnx.split(model, nnx.Param, ...)
  return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(fixed)


def merge_model(graphdef: Any, params: Params, fixed: Params) -> RelViT:
  """The inverse of `split_model`; inside jit it costs nothing."""
  return nnx.merge(graphdef, nnx.State(params), nnx.State(fixed))


def make_init(
  create: Callable[[nnx.Rngs], RelViT],
  optimizer: optax.GradientTransformation,
) -> Callable[[PRNGKeyArray], TrainState]:
  """key → fresh state: pure, so that it can be compiled and sharded."""

  def init(key: PRNGKeyArray) -> TrainState:
    init_key, run_key = jax.random.split(key)
    _, params, fixed = split_model(create(nnx.Rngs(init_key)))
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      key=run_key,
      params=params,
      fixed=fixed,
      opt_state=optimizer.init(params),
    )

  return init


def make_train_step(
  graphdef: Any,
  optimizer: optax.GradientTransformation,
  objective: Objective,
  augment: Augment,
  grid_size: tuple[int, int],
) -> Callable[[TrainState, feed.Batch], tuple[TrainState, metrics.Metrics]]:
  """(state, batch) → (next state, metrics as sums and counts).

  A batch is {"image": uint8 [B,H,W,3], "label": [B]}. The metrics are
  `loss_<task>` and `loss_total`, those of `metrics.measure`, and
  `gradient_norm` before clipping.
  """

  def train_step(
    state: TrainState, batch: feed.Batch
  ) -> tuple[TrainState, metrics.Metrics]:
    # Resuming never reuses noise: the step is part of the key.
    noise = jax.random.fold_in(state.key, _NOISE)
    keys = jax.random.split(jax.random.fold_in(noise, state.step), 3)
    images, permutation = augment(keys[0], batch["image"])

    def loss(params: Params) -> tuple[Array, metrics.Metrics]:
      model = merge_model(graphdef, params, state.fixed)
      outputs = model(images, train=True, rngs=nnx.Rngs(dropout=keys[1]))
      by_task = objective(
        outputs, {"label": batch["label"]}, permutation=permutation, key=keys[2]
      )
      measured = metrics.measure(
        outputs, {"label": batch["label"]}, grid_size, permutation=permutation
      )
      count = jnp.asarray(len(images), jnp.float32)
      measured |= {
        f"loss_{task}": (value * count, count)
        for task, value in by_task.items()
      }
      return by_task["total"], measured

    gradients, measured = jax.grad(loss, has_aux=True)(state.params)
    norm = optax.tree.norm(gradients)
    measured["gradient_norm"] = (norm, jnp.ones_like(norm))
    updates, opt_state = optimizer.update(
      gradients, state.opt_state, state.params
    )
    return dataclasses.replace(
      state,
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      opt_state=opt_state,
    ), measured

  return train_step


def make_train_steps(
  train_step: Callable[
    [TrainState, feed.Batch], tuple[TrainState, metrics.Metrics]
  ],
  num_steps: int,
  batch_size: int,
  mesh: Mesh,
) -> Callable[[TrainState, feed.Batch], tuple[TrainState, metrics.Metrics]]:
  """(state, resident split) → (state, metrics [num_steps] each).

  The split lies on the device; batches are drawn and the steps taken in one
  dispatch, so that the host never stands between two steps.
  """
  sharding = partitioning.batch_sharding(mesh)

  def train_steps(
    state: TrainState, split: feed.Batch
  ) -> tuple[TrainState, metrics.Metrics]:
    indices = feed.batch_indices(
      jax.random.fold_in(state.key, _ORDER),
      state.step,
      num_steps,
      batch_size,
      len(split["image"]),
    )

    def one(
      state: TrainState, chosen: Array
    ) -> tuple[TrainState, metrics.Metrics]:
      batch = jax.tree.map(lambda array: array[chosen], split)
      batch = jax.lax.with_sharding_constraint(batch, sharding)
      return train_step(state, batch)

    return jax.lax.scan(one, state, indices)

  return train_steps


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
  )
