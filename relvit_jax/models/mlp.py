"""The MLP of a transformer block: two linear layers, GELU between them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from relvit_jax.models import gelu_triton, layers, norms

_HALF_SQRT = 0.5**0.5
_BELL = 0.3989422804014327  # 1 / √(2π)


class Mlp(nnx.Module):
  """Two linear layers with the exact GELU between them.

  Args:
    dim: width D of a token.
    hidden_dim: of the layer between.
    recompute_gelu: whether the backward pass computes GELU's values again,
      which halves what is kept of an MLP. It pays where memory traffic is what
      a step waits for, as on TPUs. Without effect while dropout acts.
    kernels: whether GELU is `gelu_triton.gelu`, for NVIDIA GPUs.
  """

  def __init__(
    self,
    dim: int,
    hidden_dim: int,
    *,
    recompute_gelu: bool = False,
    kernels: bool = False,
    dropout_rate: float = 0.0,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    if hidden_dim < 1:
      raise ValueError(
        f"an MLP of width {hidden_dim} is none: mlp_ratio times embed_dim="
        f"{dim} must be at least 1"
      )
    self.recompute_gelu = recompute_gelu
    self.kernels = kernels
    self.fc1 = layers.linear(dim, hidden_dim, dtype=dtype, rngs=rngs)
    self.fc2 = layers.linear(hidden_dim, dim, dtype=dtype, rngs=rngs)
    self.dropout = nnx.Dropout(dropout_rate)

  @jax.named_scope("mlp")
  def __call__(
    self,
    x: Float[Array, "B N D"],
    *,
    norm: nnx.LayerNorm | None = None,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> Float[Array, "B N D"]:
    """What it makes of each token, after `norm` if there is one."""
    made, bias = self.unbiased(x, norm=norm, train=train, rngs=rngs)
    made = (made + bias[None]).reshape(x.shape)
    return self.dropout(made, deterministic=not train, rngs=rngs)

  @jax.named_scope("mlp")
  def unbiased(
    self,
    x: Float[Array, "B N D"],
    *,
    norm: nnx.LayerNorm | None = None,
    is_normalised: bool = False,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> tuple[Float[Array, "M D"], Float[Array, " D"]]:
    """(the same, a row a token, without the last dropout, the bias to add).

    Args:
      x: as of a call.
      norm: the same.
      is_normalised: whether the norm has its scale and bias left to give.
      train: as of a call.
      rngs: the same.
    """
    drops = train and self.dropout.rate > 0
    hidden, bias = norms.unbiased(
      self.fc1, layers.rows(x), norm, is_normalised=is_normalised
    )
    if self.recompute_gelu and not drops:
      hidden = hidden + bias[None]
      kernel, last = self.fc2.kernel[...], self.fc2.bias
      made = gelu_linear(hidden, kernel.astype(hidden.dtype))
      assert last is not None
      return made, last[...].astype(hidden.dtype)
    hidden = (gelu_triton.gelu if self.kernels else gelu)(hidden, bias)
    hidden = self.dropout(hidden, deterministic=not train, rngs=rngs)
    return norms.unbiased(self.fc2, hidden)


@jax.custom_vjp
def gelu(
  x: Float[Array, "M F"], bias: Float[Array, " F"]
) -> Float[Array, "M F"]:
  """z Φ(z) of z = x + bias, computed in float32 whatever the type of x.

  The backward pass keeps x alone, as a product left it: z is never written.
  Left to itself JAX goes through erfc, which a CPU computes in two ways to
  choose one.
  """
  wide = x.astype(jnp.float32) + bias.astype(jnp.float32)[None]
  return (wide * _below(wide)).astype(x.dtype)


def _gelu_backward(
  kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
  x, bias = kept
  # Else XLA would find erf in the forward pass, and write and read it.
  x = jax.lax.optimization_barrier(x)
  wide = x.astype(jnp.float32) + bias.astype(jnp.float32)[None]
  to_x = (gradient.astype(jnp.float32) * _slope(wide)).astype(x.dtype)
  # And in one pass with these a GPU sums columns at half the speed, or computes
  # all of it twice.
  to_bias = jax.lax.optimization_barrier(to_x).astype(jnp.float32)
  return to_x, jnp.sum(to_bias, axis=0).astype(bias.dtype)


gelu.defvjp(lambda x, bias: (gelu(x, bias), (x, bias)), _gelu_backward)


@jax.custom_vjp
def gelu_linear(
  x: Float[Array, "M F"], kernel: Float[Array, "F D"]
) -> Float[Array, "M D"]:
  """gelu(x) · kernel, of which the backward pass keeps x alone."""
  return _by_erfc(x) @ kernel


def _gelu_linear_backward(kept: tuple, gradient: Array) -> tuple[Array, Array]:
  x, kernel = kept
  x = jax.lax.optimization_barrier(x)
  return _through_gelu(x, gradient @ kernel.T), _by_erfc(x).T @ gradient


gelu_linear.defvjp(
  lambda x, kernel: (gelu_linear(x, kernel), (x, kernel)), _gelu_linear_backward
)


def _by_erfc(x: Array) -> Array:
  """The same numbers but for rounding.

  With erf XLA finds another plan for a TPU v5e: a step of ViT-S/4, 256 images,
  then accesses 122 MB an image where it accesses 96 with erfc (libtpu 0.0.52).
  """
  return jax.nn.gelu(x.astype(jnp.float32), approximate=False).astype(x.dtype)


def _through_gelu(x: Array, gradient: Array) -> Array:
  # Else XLA would find erf in the forward pass, and write and read it.
  x = jax.lax.optimization_barrier(x)
  slope = _slope(x.astype(jnp.float32))
  return (gradient.astype(jnp.float32) * slope).astype(x.dtype)


def _slope(x: Array) -> Array:
  return _below(x) + x * jnp.exp(-0.5 * x * x) * _BELL


def _below(x: Array) -> Array:
  """Φ(x), the share of a normal distribution below x."""
  return 0.5 * (1 + jax.lax.erf(x * _HALF_SQRT))
