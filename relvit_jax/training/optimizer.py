"""The paper's learning-rate curve and AdamW, as the official code runs them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def paper_schedule(
  base_lr: float, end_lr: float, total_steps: int
) -> optax.Schedule:
  """Linear warm-up over a tenth of the steps, then a quarter of a cosine.

  The cosine counts from step 0, so the rate jumps to 0.988 of `base_lr` at
  the end of the warm-up, and it falls all the way only at the last step:
  lr(s) = base · cos(π s / 2S) + end · (1 - cos(π s / 2S)). Step 0 has rate 0,
  unless there are fewer than ten; after the last step the rate stays.

  Args:
    base_lr: the rate that the warm-up climbs to.
    end_lr: the rate at step `total_steps`.
    total_steps: S, at least 1.

  Returns:
    step → learning rate, float32.
  """
  if total_steps < 1:
    raise ValueError(f"total_steps={total_steps} must be at least 1")
  if base_lr < 0 or end_lr < 0:
    raise ValueError(
      f"the rates base_lr={base_lr} and end_lr={end_lr} must not be negative"
    )
  warmup_steps = total_steps // 10

  def schedule(step: jax.typing.ArrayLike) -> jax.Array:
    step = jnp.minimum(jnp.asarray(step), total_steps)
    # cos(π s / 2S) as the sine of what is left: exact at the end, where the
    # cosine of a rounded π/2 would be the larger part of the sum.
    left = (total_steps - step) / total_steps
    cosine = jnp.sin(np.float32(np.pi / 2) * left)
    warmup = base_lr * step / max(warmup_steps, 1)
    decay = base_lr * cosine + end_lr * (1 - cosine)
    return jnp.where(step < warmup_steps, warmup, decay).astype(jnp.float32)

  return schedule


def paper_adamw(
  schedule_or_lr: optax.ScalarOrSchedule,
  weight_decay: float = 0.1,
  clip_norm: float | None = 1.0,
) -> optax.GradientTransformation:
  """AdamW as PyTorch runs it, after clipping the global gradient norm.

  betas 0.9 and 0.999, epsilon 1e-8. The decay falls on every parameter, also
  on biases, norms and embeddings, but only on those that have a gradient:
  PyTorch skips a parameter without one, where optax would shrink it to half
  in a CIFAR run. A gradient that is zero in every entry counts as none; that
  differs from PyTorch where a loss of weight 0 or drop-path on a whole batch
  makes it so.

  Args:
    schedule_or_lr: a learning rate, or a schedule of the step.
    weight_decay: what a step takes of a parameter, in units of the rate.
    clip_norm: the largest global norm of the gradients; None clips nothing.
  """
  if clip_norm is not None and clip_norm <= 0:
    raise ValueError(f"clip_norm={clip_norm} must be positive, or None")
  return optax.chain(
    optax.identity()
    if clip_norm is None
    else optax.clip_by_global_norm(clip_norm),
    _adam_with_decay(weight_decay),
    optax.scale_by_learning_rate(schedule_or_lr),
  )


def _adam_with_decay(weight_decay: float) -> optax.GradientTransformation:
  adam = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)

  def update(
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None = None,
  ) -> tuple[optax.Updates, optax.OptState]:
    if params is None:
      raise ValueError("paper_adamw decays weights: update needs params")
    steps, state = adam.update(updates, state, params)

    def decay(step: jax.Array, gradient: jax.Array, param: jax.Array) -> Any:
      return step + jnp.any(gradient != 0) * weight_decay * param

    return jax.tree.map(decay, steps, updates, params), state

  return optax.GradientTransformation(adam.init, update)
