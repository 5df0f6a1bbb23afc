"""The paper's learning-rate curve and AdamW, as the official code runs them."""

from __future__ import annotations

from typing import Any, cast

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
  lr(s) = base · cos(π s / 2S) + end · (1 - cos(π s / 2S)). Step 0 has rate 0.

  Args:
    base_lr: the rate that the warm-up climbs to.
    end_lr: the rate at step `total_steps`.
    total_steps: S, at least 1.

  Returns:
    step → learning rate, float32.
  """
  if total_steps < 1:
    raise ValueError(f"total_steps={total_steps} must be at least 1")
  warmup_steps = total_steps // 10

  def schedule(step: jax.typing.ArrayLike) -> jax.Array:
    step = jnp.asarray(step)
    # cos(π s / 2S) as the sine of what is left: exact at the end, where the
    # cosine of a rounded π/2 would be the larger part of the sum.
    left = (total_steps - step) / total_steps
    cosine = jnp.sin(np.float32(np.pi / 2) * left)
    warmup = base_lr * step / max(warmup_steps, 1)
    decay = base_lr * cosine + end_lr * (1 - cosine)
    return jnp.where(step < warmup_steps, warmup, decay).astype(jnp.float32)

  return schedule


def paper_adamw(
  learning_rate: optax.ScalarOrSchedule,
  weight_decay: float = 0.1,
  clip_norm: float | None = 1.0,
) -> optax.GradientTransformation:
  """AdamW as PyTorch runs it, after clipping the global gradient norm.

  betas 0.9 and 0.999, epsilon 1e-8. The decay falls on every parameter, also
  on biases, norms and embeddings, but only on those that have a gradient:
  PyTorch skips a parameter without one, where optax would shrink it to half
  in a CIFAR run. A gradient that is zero in every entry counts as none.

  Args:
    learning_rate: a rate, or a schedule of the step.
    weight_decay: what a step takes of a parameter, in units of the rate.
    clip_norm: the largest global norm of the gradients; None clips nothing.
  """
  adamw = optax.chain(
    optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
    optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
  )
  rate = optax.scale_by_learning_rate(learning_rate)

  def init(params: optax.Params) -> optax.OptState:
    return adamw.init(params), rate.init(params)

  def update(
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None = None,
  ) -> tuple[optax.Updates, optax.OptState]:
    if params is None:
      raise ValueError("paper_adamw decays weights: update needs params")
    adam_state, rate_state = cast(tuple[Any, Any], state)
    steps, adam_state = adamw.update(updates, adam_state, params)
    steps = jax.tree.map(
      lambda step, gradient, param: (
        step + jnp.any(gradient != 0) * weight_decay * param
      ),
      steps,
      updates,
      params,
    )
    steps, rate_state = rate.update(steps, rate_state, params)
    return steps, (adam_state, rate_state)

  return optax.GradientTransformation(init, update)
