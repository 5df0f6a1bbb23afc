"""Attention for CPUs: products, and a backward pass that follows from them.

The weights of all pairs of tokens are never normalised: the result is, which
has a head's width a token and not all other tokens. Its product with its own
gradient is also what the backward pass takes from each row of scores (Dao et
al., 2022, appendix B.4), where the derivative of a softmax sums over each row
once more.

On two cores of a Zen 3 (JAX 0.10.2) a training step of a ViT 96 wide, 3 heads
in 6 layers, batches of 64, took 183 ms with it and 192 as JAX differentiates a
softmax, the least of 20 calls in turn; one of the ViT-S, as long either way.

XLA's libraries share one product among the cores, and not the many small ones
of a batch: these run on one core, a sixth of that step (JAX 0.10.2 on an EPYC,
2026-12-01: their CPU time is the time they take). Halves of a batch run side by
side as those of two devices, or where over eight kernels are ready at once.

Compiled for a TPU v5e or an H100 the kernels of a step would move as much or
more, so there it is not used.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Numbers across a head, up to which a product is faster the other way around.
_NARROW = 32


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def attend(
  qkv: Float[Array, "M F"], length: int, num_heads: int
) -> Float[Array, "M D"]:
  """softmax(q kᵀ / √d) v of every head and image.

  Args:
    qkv: [B·T, 3·D], queries, keys and values of all heads side by side, a row
      a token.
    length: tokens T of an image.
    num_heads: heads of width d that share D.
  """
  return _forward(qkv, length, num_heads)[0]


def _forward(qkv: Array, length: int, num_heads: int) -> tuple[Array, Any]:
  query, key, value = (
    _heads(part, length, num_heads) for part in jnp.split(qkv, 3, axis=1)
  )
  query = query * query.shape[-1] ** -0.5
  scores = _sum("bhid,bhjd->bhij", query, key)
  powers = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
  share = 1 / jnp.sum(powers, axis=-1, keepdims=True)
  powers = powers.astype(value.dtype)
  mixed = _sum("bhij,bhjd->bhid", powers, value) * share
  mixed = _rows(mixed).astype(value.dtype)
  return mixed, (query, key, value, powers, share, mixed)


def _backward(
  length: int, num_heads: int, kept: Any, gradient: Array
) -> tuple[Array]:
  query, key, value, powers, share, mixed = kept
  gradient = _heads(gradient, length, num_heads) * share
  mixed = _heads(mixed, length, num_heads)
  mean = jnp.sum(gradient * mixed, axis=-1, keepdims=True)
  gradient = gradient.astype(value.dtype)
  by_weight = _sum("bhid,bhjd->bhij", gradient, value)
  by_score = ((by_weight - mean) * powers).astype(query.dtype)
  parts = (
    _sum("bhij,bhjd->bhid", by_score, key) * query.shape[-1] ** -0.5,
    _sum_of_transposed(by_score, query),
    _sum_of_transposed(powers, gradient),
  )
  made = [_rows(part).astype(value.dtype) for part in parts]
  return (jnp.concatenate(made, axis=1),)


attend.defvjp(_forward, _backward)


def _heads(
  rows: Float[Array, "M D"], length: int, num_heads: int
) -> Float[Array, "B heads T d"]:
  made = rows.reshape(-1, length, num_heads, rows.shape[1] // num_heads)
  return made.transpose(0, 2, 1, 3)


def _rows(heads: Float[Array, "B heads T d"]) -> Float[Array, "M D"]:
  batch, num_heads, length, width = heads.shape
  return heads.transpose(0, 2, 1, 3).reshape(batch * length, num_heads * width)


def _sum(how: str, *factors: Array) -> Array:
  return jnp.einsum(how, *factors, preferred_element_type=jnp.float32)


def _sum_of_transposed(
  pairs: Float[Array, "B heads i j"], rows: Float[Array, "B heads i d"]
) -> Float[Array, "B heads j d"]:
  """pairsᵀ rows.

  XLA gives a CPU's products to one library where they sum over the last axis of
  the first factor, and to a slower one where not. Narrow rows are turned for
  it, and so is the result; 64 across, that took half as long again as to leave
  it.
  """
  if rows.shape[-1] > _NARROW:
    return _sum("bhij,bhid->bhjd", pairs, rows)
  # XLA would otherwise take the transposes into the product, which undoes it.
  turned = jax.lax.optimization_barrier(jnp.swapaxes(rows, 2, 3))
  made = _sum("bhdi,bhij->bhdj", turned, pairs)
  return jnp.swapaxes(jax.lax.optimization_barrier(made), 2, 3)
