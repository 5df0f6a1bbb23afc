"""Attention among few tokens as one kernel for TPUs.

Of an image of 65 tokens all scores fit into a core's memory many times over.
XLA nevertheless writes them out and reads them again between the products and
the softmax, forward and backward, and moves query, key and value to other
layouts for it. Here a program of the grid reads the rows of some images once
and writes their result once; the backward pass computes the scores again.

Compiled ahead of time for a TPU v5e (JAX 0.12.0.1, libtpu 0.0.52), it takes a
training step of ViT-S/4 with all pair heads, 256 images of 32 pixels a chip,
from 54 to 24 MB of main memory traffic an image.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from relvit_jax.models import by_device

# A block's first axis is a multiple of this, the rows of a tile of bfloat16.
_TILE = 16
# What the blocks of a program may take: the smallest core memory, TPU v4's, has
# 16 MiB, and every block is there twice, to be read while another is used.
_BLOCK_BYTES = 6 * 2**20
# Scores of one head of one image stay in registers and core memory.
_MAX_LENGTH = 256


def obstacle(length: int, dim: int, num_heads: int, itemsize: int) -> str:
  """Why the kernel cannot be used for such tokens; empty where it can be.

  Args:
    length: tokens T of an image.
    dim: their width D.
    num_heads: of attention.
    itemsize: bytes of a number.
  """
  if length > _MAX_LENGTH:
    return f"{length} tokens are more than {_MAX_LENGTH}"
  if dim // num_heads % 8:
    return f"heads {dim // num_heads} wide are no multiple of 8"
  # Of the backward pass: query, key, value, their gradients, and the result's.
  taken = _images(length) * length * 7 * dim * itemsize
  if taken > _BLOCK_BYTES:
    return (
      f"{_images(length)} images take {taken / 2**20:.1f} MiB of a core's "
      f"memory, above {_BLOCK_BYTES / 2**20:.0f}"
    )
  return ""


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def attend(
  qkv: Float[Array, "M F"], length: int, num_heads: int
) -> Float[Array, "M D"]:
  """softmax(q kᵀ / √d) v of every head and image.

  Compiled for a TPU; on anything else each program of the grid is interpreted,
  which is slow and serves tests. Traced in the context of a mesh
  (`partitioning.on_mesh`), each device takes the rows that it has.

  Args:
    qkv: [B·T, 3·D], queries, keys and values of all heads side by side, a row
      a token.
    length: tokens T of an image.
    num_heads: heads of width d that share D.
  """
  return _run(_forward, length, num_heads, qkv)


def _attend_forward(qkv: Array, length: int, num_heads: int) -> Any:
  return attend(qkv, length, num_heads), qkv


def _attend_backward(
  length: int, num_heads: int, qkv: Array, gradient: Array
) -> Any:
  return (_run(_backward, length, num_heads, qkv, gradient),)


attend.defvjp(_attend_forward, _attend_backward)


def _forward(qkv: Any, out: Any, *, length: int, num_heads: int) -> None:
  for rows, columns in _tiles(out.shape, length, num_heads):
    query, key, value = (qkv[rows, part] for part in columns)
    weights = _weights(query, key).astype(value.dtype)
    out[rows, columns[0]] = _product(weights, value, 1, 0).astype(out.dtype)


def _backward(
  qkv: Any, gradient: Any, out: Any, *, length: int, num_heads: int
) -> None:
  for rows, columns in _tiles(gradient.shape, length, num_heads):
    query, key, value = (qkv[rows, part] for part in columns)
    mine = gradient[rows, columns[0]]
    weights = _weights(query, key)
    to_value = _product(weights.astype(value.dtype), mine, 0, 0)
    to_weights = _product(mine, value, 1, 1)
    mean = jnp.sum(weights * to_weights, axis=1, keepdims=True)
    to_scores = weights * (to_weights - mean) * query.shape[1] ** -0.5
    to_scores = to_scores.astype(query.dtype)
    parts = (
      _product(to_scores, key, 1, 0),
      _product(to_scores, query, 0, 0),
      to_value,
    )
    for part, value in zip(columns, parts, strict=True):
      out[rows, part] = value.astype(out.dtype)


def _tiles(shape: tuple[int, ...], length: int, num_heads: int) -> Any:
  """Rows of each image and columns of query, key and value of each head."""
  rows, dim = shape
  width = dim // num_heads
  for image in range(rows // length):
    for head in range(num_heads):
      firsts = (part * dim + head * width for part in range(3))
      yield (
        slice(image * length, (image + 1) * length),
        [slice(first, first + width) for first in firsts],
      )


def _weights(query: Array, key: Array) -> Array:
  scores = _product(query, key, 1, 1) * query.shape[1] ** -0.5
  powers = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
  return powers / jnp.sum(powers, axis=1, keepdims=True)


def _product(left: Array, right: Array, left_axis: int, right_axis: int) -> Any:
  """Summed over one axis of each, in float32."""
  return jax.lax.dot_general(
    left,
    right,
    (((left_axis,), (right_axis,)), ((), ())),
    preferred_element_type=jnp.float32,
  )


def _images(length: int) -> int:
  """How many images fill whole tiles."""
  return _TILE // math.gcd(length, _TILE)


def _run(kernel: Any, length: int, num_heads: int, *arrays: Array) -> Array:
  """The kernel over all images; each device of a mesh takes its own."""
  called = functools.partial(_call, kernel, length, num_heads)
  return by_device.call(called, "tpu", *arrays)


def _call(
  kernel: Any,
  length: int,
  num_heads: int,
  interpret: bool,
  *arrays: Array,
) -> Array:
  # From three widths to one, or from three and one to three.
  dim = arrays[0].shape[1] // 3
  width = dim if len(arrays) == 1 else 3 * dim
  total = arrays[0].shape[0]
  block = min(_images(length) * length, total)

  def spec(width: int) -> pl.BlockSpec:
    return pl.BlockSpec((block, width), lambda index: (index, 0))

  result = jax.ShapeDtypeStruct((total, width), arrays[0].dtype)
  return pl.pallas_call(
    functools.partial(kernel, length=length, num_heads=num_heads),
    grid=(pl.cdiv(total, block),),
    in_specs=[spec(array.shape[1]) for array in arrays],
    out_specs=spec(width),
    out_shape=result,
    interpret=interpret,
    cost_estimate=_cost(length, num_heads, (*arrays, result)),
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
  )(*arrays)


def _cost(length: int, num_heads: int, arrays: Any) -> pl.CostEstimate:
  """Two products forward, five backward; every row is moved once."""
  rows, width = arrays[0].shape
  products = 2 if len(arrays) == 2 else 5
  return pl.CostEstimate(
    flops=products * 2 * rows * length * width // 3,
    transcendentals=rows * num_heads * length,
    bytes_accessed=sum(array.size * array.dtype.itemsize for array in arrays),
  )
