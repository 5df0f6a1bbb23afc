"""What the backbones share: tokens, patch embedding, linear layers, drop-path.

Randomness is never kept in a module: where `train` is true, the caller hands
over `rngs` with a `dropout` stream, so that a step stays a pure function.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from relvit_jax import grid

# Compute type of a module; None computes in the type of the parameters.
Dtype = Any

# timm's default for transformer weights: its truncation at ±2 is a hundred
# standard deviations away, so it is a plain normal distribution.
TRANSFORMER_INIT = nnx.initializers.normal(0.02)

# PyTorch's default for linear layers, U(±1/√fan_in): what the official code
# leaves in its heads and in its patch embedding.
TORCH_INIT = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

LAYER_NORM_EPSILON = 1e-6

# What a GPU takes of a row at once, in numbers of 16 bits.
_TILE = 64


class Fixed(nnx.Variable):
  """An array that belongs to the weights of a model and is never trained."""


class Tokens(NamedTuple):
  """What every backbone returns.

  Attributes:
    patches: one token a patch, in reading order.
    cls: the class token, if the backbone has one.
    local: what dense relative localisation reads of the same patches, which
      is not normalised in all backbones; each says what it is.
  """

  patches: Float[Array, "B N D"]
  cls: Float[Array, "B D"] | None
  local: Float[Array, "B N D"]


def torch_bias_init(fan_in: int) -> nnx.Initializer:
  """PyTorch's default for the bias beside a kernel of this fan-in."""
  bound = fan_in**-0.5

  def init(key: Array, shape: Any, dtype: Any = jnp.float32) -> Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def torch_linear(
  in_features: int, out_features: int, *, dtype: Dtype, rngs: nnx.Rngs
) -> nnx.Linear:
  """A linear layer with PyTorch's default initialisation."""
  return nnx.Linear(
    in_features,
    out_features,
    kernel_init=TORCH_INIT,
    bias_init=torch_bias_init(in_features),
    dtype=dtype,
    rngs=rngs,
  )


def linear(
  in_features: int,
  out_features: int,
  *,
  use_bias: bool = True,
  dtype: Dtype,
  rngs: nnx.Rngs,
) -> nnx.Linear:
  """A linear layer as transformers initialise it."""
  return nnx.Linear(
    in_features,
    out_features,
    use_bias=use_bias,
    kernel_init=TRANSFORMER_INIT,
    dtype=dtype,
    rngs=rngs,
  )


def side_by_side(
  linears: Sequence[nnx.Linear], x: Float[Array, "*S D"]
) -> list[Float[Array, "*S _"]]:
  """What each of some layers of one type makes of the same input.

  On an NVIDIA GPU by one product, as are the gradients of input and weights: in
  a trace of an H200 the gradient of the input took seven products for the heads
  of ViT-S/4, at 259 TFLOP/s where the MLPs' ran at 660 and more. Compiled for a
  TPU, the gradients of the one would be written side by side first, a tenth
  more of a step's traffic with main memory.
  """
  dtype = linears[0].dtype or linears[0].kernel.dtype
  kernels = [jnp.asarray(linear.kernel[...], dtype) for linear in linears]
  parts = jax.lax.platform_dependent(
    jnp.asarray(x, dtype),
    *kernels,
    cuda=by_one_product,
    default=lambda x, *kernels: [x @ kernel for kernel in kernels],
  )
  for i, linear in enumerate(linears):
    if linear.bias is not None:
      bias = jnp.asarray(linear.bias[...], dtype)
      parts[i] += bias.reshape((1,) * (x.ndim - 1) + bias.shape)
  return parts


def by_one_product(
  x: Float[Array, "*S D"], *kernels: Float[Array, "D _"]
) -> list[Float[Array, "*S _"]]:
  """The product of x with each matrix."""
  ends = np.cumsum([kernel.shape[1] for kernel in kernels])
  # In that trace rows of 2,356 numbers were multiplied at 369 TFLOP/s.
  missing = jnp.zeros((x.shape[-1], -ends[-1] % _TILE), x.dtype)
  made = x @ jnp.concatenate([*kernels, missing], axis=1)
  return jnp.split(made, ends, axis=-1)[:-1]


class PatchEmbed(nnx.Module):
  """A linear map of each patch's RGB pixels: a convolution without overlap."""

  def __init__(
    self,
    patch_size: int,
    embed_dim: int,
    *,
    dtype: Dtype = None,
    rngs: nnx.Rngs,
  ):
    self.patch_size = patch_size
    self.proj = torch_linear(
      patch_size**2 * 3, embed_dim, dtype=dtype, rngs=rngs
    )

  @jax.named_scope("embedding")
  def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B N D"]:
    patches = grid.patchify(images, self.patch_size)
    # With an axis for images XLA has a CPU turn the gradient of all tokens
    # around, and compute it once more on the way: a hundredth of a ViT-S step.
    return self.proj(rows(patches)).reshape(*patches.shape[:2], -1)


def layer_norm(
  dim: int,
  *,
  epsilon: float = LAYER_NORM_EPSILON,
  dtype: Dtype,
  rngs: nnx.Rngs,
) -> nnx.LayerNorm:
  return nnx.LayerNorm(dim, epsilon=epsilon, dtype=dtype, rngs=rngs)


def rows(x: Float[Array, "*S D"]) -> Float[Array, "M D"]:
  """A token a row, whatever image it belongs to."""
  return x.reshape(-1, x.shape[-1])


@jax.custom_vjp
def product(
  x: Float[Array, "M D"], kernel: Float[Array, "D F"]
) -> Float[Array, "M F"]:
  """x · kernel, whose kernel learns by the product that a CPU is quick at.

  Of a kernel with many more rows than columns that is the transposed one: on
  two cores of a Xeon with AVX-512, for 4,160 rows of 384 and 96 numbers, 203
  GFLOP/s instead of 121, for 1,536 and 384 as many (JAX 0.10.2).
  """
  return x @ kernel


def _product_backward(
  kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
  x, kernel = kept

  def plain(x: Array, gradient: Array) -> Array:
    return x.T @ gradient

  def turned(x: Array, gradient: Array) -> Array:
    # Else XLA would turn the product around once more.
    return jax.lax.optimization_barrier(gradient.T @ x).T

  if kernel.shape[0] < 2 * kernel.shape[1]:
    to_kernel = plain(x, gradient)
  else:
    to_kernel = jax.lax.platform_dependent(
      x, gradient, cpu=turned, default=plain
    )
  return gradient @ kernel.T, to_kernel


product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _product_backward)


def draw_paths(
  rngs: nnx.Rngs | None, rates: Sequence[float], batch: int, train: bool
) -> Iterator[Float[Array, "2 B"] | None]:
  """For each block, what its two branches are multiplied with, by image.

  0, or 1 / (1 - rate): drop-path, or stochastic depth (Huang et al., 2016).
  Drawn at once: a key of its own for each branch would cost a TPU thousands of
  operations on single numbers.

  Args:
    rngs: with a stream `dropout`.
    rates: share of the images that a block's branches are dropped for.
    batch: B.
    train: whether anything is dropped.

  Returns:
    None for a block of which nothing is ever dropped.
  """
  if not train or not any(rates):
    return iter([None] * len(rates))
  assert rngs is not None
  kept = 1 - np.asarray(rates, np.float32)[:, None, None]
  numbers = jax.random.uniform(rngs.dropout(), (len(rates), 2, batch))
  factors = (numbers < kept) / kept
  return iter(
    own if rate else None for own, rate in zip(factors, rates, strict=True)
  )
