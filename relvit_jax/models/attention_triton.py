"""Attention among few tokens as one kernel for NVIDIA GPUs, by Pallas' Triton.

The scores of one head of an image of 65 tokens fit into the registers of a
multiprocessor. XLA writes them out between the products and the softmax, in
float32, in rows of 65 that its matrix units do not like; cuDNN, which keeps
them inside, takes an even number of tokens only and wants query, key and value
each for itself. Here a program of the grid takes one head of one image: it
reads its columns of the rows that the projection made, adds the bias to them,
and writes what they come to; the backward pass computes the scores again.

On an H200 with JAX 0.11.2, a step of ViT-S/4 with all pair heads, 256 images of
32 pixels, took 12.4 ms with XLA's products, 11.2 with cuDNN's attention, and
10.0 with the first version of this kernel. By itself, for 1,024 images of 65
tokens and 6 heads 64 wide, the kernel takes 85 µs forwards, and 207 backwards,
where reading and writing once would take 50 and 87; the token too many is half
of the second, as 64 take 62 and 119.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from relvit_jax.models import attention_tile, by_device
from relvit_jax.models.attention_tile import plgpu

# All scores of a head stay in registers.
_MAX_TILE = 64
_WARPS = 4


def obstacle(length: int, dim: int, num_heads: int) -> str:
  """Why the kernel cannot be used for such tokens; empty where it can be.

  Args:
    length: tokens T of an image.
    dim: their width D.
    num_heads: of attention.
  """
  if plgpu is None:
    return f"JAX {jax.__version__} has no Triton"
  if attention_tile.cut(length).size > _MAX_TILE:
    return f"{length} tokens are more than {_MAX_TILE + 1}"
  width = dim // num_heads
  if width < attention_tile.LEAST or width & (width - 1):
    return (
      f"heads {width} wide are no power of two from {attention_tile.LEAST} on"
    )
  return ""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def attend(
  qkv: Float[Array, "M F"],
  bias: Float[Array, " F"],
  length: int,
  num_heads: int,
) -> Float[Array, "M D"]:
  """softmax(q kᵀ / √d) v of every head and image.

  Compiled for a GPU; on anything else each program of the grid is interpreted,
  which is slow and serves tests. Traced in the context of a mesh
  (`partitioning.on_mesh`), each device takes the rows that it has.

  Args:
    qkv: [B·T, 3·D], queries, keys and values of all heads side by side, a row
      a token, before the bias is added.
    bias: [3·D], of the projection.
    length: tokens T of an image.
    num_heads: heads of width d that share D.
  """

  def run(interpret: bool, qkv: Array, bias: Array) -> Array:
    made = jax.ShapeDtypeStruct((len(qkv), qkv.shape[1] // 3), qkv.dtype)
    return _call(attention_tile.forward, made, length, num_heads, interpret)(
      qkv, bias
    )

  return by_device.call(run, "cuda", qkv, bias, whole=(1,))


def _attend_forward(
  qkv: Array, bias: Array, length: int, num_heads: int
) -> Any:
  return attend(qkv, bias, length, num_heads), (qkv, bias)


def _attend_backward(
  length: int, num_heads: int, kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
  def run(interpret: bool, qkv: Array, bias: Array, gradient: Array) -> Any:
    made = jax.ShapeDtypeStruct(qkv.shape, qkv.dtype)
    called = _call(attention_tile.backward, made, length, num_heads, interpret)
    return called(qkv, bias, gradient)

  qkv, bias = kept
  made = by_device.call(run, "cuda", qkv, bias, gradient, whole=(1,))
  # What is added to all keys moves no softmax, and the weights of a query sum
  # to 1.
  dim = gradient.shape[1]
  # A slice that goes through the barrier would be copied for it.
  made, gradient = jax.lax.optimization_barrier((made, gradient))
  to_query, to_value = (
    jnp.sum(part.astype(jnp.float32), axis=0)
    for part in (made[:, :dim], gradient)
  )
  to_bias = jnp.concatenate([to_query, jnp.zeros_like(to_query), to_value])
  return made, to_bias.astype(bias.dtype)


attend.defvjp(_attend_forward, _attend_backward)


def _call(
  kernel: Any, made: Any, length: int, num_heads: int, interpret: bool
) -> Any:
  return pl.pallas_call(
    functools.partial(kernel, length=length, num_heads=num_heads),
    grid=(made.shape[0] // length, num_heads),
    out_shape=made,
    interpret=interpret,
    compiler_params=plgpu.CompilerParams(num_warps=_WARPS, num_stages=1),
    name=f"attention_{kernel.__name__}",
  )
