"""What the backbones share: attention, MLP, patch embedding, tokens.

Randomness is never kept in a module: where `train` is true, the caller hands
over `rngs` with a `dropout` stream, so that a step stays a pure function.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from relvit_jax import grid
from relvit_jax.models.variants import ATTENTION_MASKS

# Compute type of a module; None computes in the type of the parameters.
Dtype = Any

# timm's default for transformer weights: its truncation at ±2 is a hundred
# standard deviations away, so it is a plain normal distribution.
TRANSFORMER_INIT = nnx.initializers.normal(0.02)

# PyTorch's default for linear layers, U(±1/√fan_in): what the official code
# leaves in its heads and in its patch embedding.
TORCH_INIT = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

LAYER_NORM_EPSILON = 1e-6


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

  def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B N D"]:
    return self.proj(grid.patchify(images, self.patch_size))


def attention_mask(kind: str, length: int) -> Bool[np.ndarray, "T T"]:
  """Whether token i, by row, may attend to token j; the class token is first.

  Raises:
    ValueError: there is no such mask.
  """
  if kind not in ATTENTION_MASKS:
    raise ValueError(
      f"attention_mask={kind!r} does not exist; there are "
      f"{', '.join(ATTENTION_MASKS)}"
    )
  mask = np.eye(length, dtype=bool)
  if kind == "diagonal_cls_row":
    mask[:1] = True
  return mask


class Attention(nnx.Module):
  """Multi-head self-attention with one fused query-key-value projection."""

  def __init__(
    self,
    dim: int,
    num_heads: int,
    *,
    qkv_bias: bool = True,
    mask: str | None = None,
    dropout_rate: float = 0.0,
    attention_dropout_rate: float = 0.0,
    dtype: Dtype = None,
    rngs: nnx.Rngs,
  ):
    if dim % num_heads:
      raise ValueError(
        f"num_heads={num_heads} must divide the width embed_dim={dim}"
      )
    self.num_heads = num_heads
    self.mask = mask
    self.qkv = linear(dim, 3 * dim, use_bias=qkv_bias, dtype=dtype, rngs=rngs)
    self.proj = linear(dim, dim, dtype=dtype, rngs=rngs)
    self.attention_dropout = nnx.Dropout(attention_dropout_rate)
    self.dropout = nnx.Dropout(dropout_rate)

  def __call__(
    self,
    x: Float[Array, "B N D"],
    *,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> Float[Array, "B N D"]:
    query, key, value = self._project(x)
    weights = self._attend(query, key).astype(value.dtype)
    weights = self.attention_dropout(
      weights, deterministic=not train, rngs=rngs
    )
    mixed = jnp.einsum("bhij,bjhd->bihd", weights, value)
    mixed = self.proj(mixed.reshape(x.shape))
    return self.dropout(mixed, deterministic=not train, rngs=rngs)

  def weights(self, x: Float[Array, "B N D"]) -> Float[Array, "B heads N N"]:
    """How much token i takes from token j in each head; rows sum to 1."""
    query, key, _ = self._project(x)
    return self._attend(query, key)

  def _project(self, x: Float[Array, "B N D"]) -> tuple[Array, Array, Array]:
    """Query, key and value, each [B, N, heads, D / heads]."""
    batch, length, _ = x.shape
    qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, -1)
    return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]

  def _attend(
    self, query: Float[Array, "B N heads d"], key: Float[Array, "B N heads d"]
  ) -> Float[Array, "B heads N N"]:
    scores = jnp.einsum(
      "bihd,bjhd->bhij", query, key, preferred_element_type=jnp.float32
    )
    scores *= query.shape[-1] ** -0.5
    if self.mask is not None:
      allowed = attention_mask(self.mask, query.shape[1])
      scores = jnp.where(allowed[None, None], scores, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1)


class Mlp(nnx.Module):
  """Two linear layers with the exact GELU between them."""

  def __init__(
    self,
    dim: int,
    hidden_dim: int,
    *,
    dropout_rate: float = 0.0,
    dtype: Dtype = None,
    rngs: nnx.Rngs,
  ):
    if hidden_dim < 1:
      raise ValueError(
        f"an MLP of width {hidden_dim} is none: mlp_ratio times embed_dim="
        f"{dim} must be at least 1"
      )
    self.fc1 = linear(dim, hidden_dim, dtype=dtype, rngs=rngs)
    self.fc2 = linear(hidden_dim, dim, dtype=dtype, rngs=rngs)
    self.dropout = nnx.Dropout(dropout_rate)

  def __call__(
    self,
    x: Float[Array, "B N D"],
    *,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> Float[Array, "B N D"]:
    x = jax.nn.gelu(self.fc1(x), approximate=False)
    x = self.dropout(x, deterministic=not train, rngs=rngs)
    x = self.fc2(x)
    return self.dropout(x, deterministic=not train, rngs=rngs)


class Block(nnx.Module):
  """A pre-norm transformer block; drop-path skips a branch of an image."""

  def __init__(
    self,
    dim: int,
    num_heads: int,
    mlp_ratio: float,
    *,
    qkv_bias: bool = True,
    mask: str | None = None,
    epsilon: float = LAYER_NORM_EPSILON,
    dropout_rate: float = 0.0,
    attention_dropout_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    dtype: Dtype = None,
    rngs: nnx.Rngs,
  ):
    self.norm1 = layer_norm(dim, epsilon=epsilon, dtype=dtype, rngs=rngs)
    self.attn = Attention(
      dim,
      num_heads,
      qkv_bias=qkv_bias,
      mask=mask,
      dropout_rate=dropout_rate,
      attention_dropout_rate=attention_dropout_rate,
      dtype=dtype,
      rngs=rngs,
    )
    self.norm2 = layer_norm(dim, epsilon=epsilon, dtype=dtype, rngs=rngs)
    self.mlp = Mlp(
      dim,
      int(dim * mlp_ratio),
      dropout_rate=dropout_rate,
      dtype=dtype,
      rngs=rngs,
    )
    self.drop_path = nnx.Dropout(drop_path_rate, broadcast_dims=(1, 2))

  def __call__(
    self,
    x: Float[Array, "B N D"],
    *,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> Float[Array, "B N D"]:
    branch = self.attn(self.norm1(x), train=train, rngs=rngs)
    x = x + self.drop_path(branch, deterministic=not train, rngs=rngs)
    branch = self.mlp(self.norm2(x), train=train, rngs=rngs)
    return x + self.drop_path(branch, deterministic=not train, rngs=rngs)


def layer_norm(
  dim: int,
  *,
  epsilon: float = LAYER_NORM_EPSILON,
  dtype: Dtype,
  rngs: nnx.Rngs,
) -> nnx.LayerNorm:
  return nnx.LayerNorm(dim, epsilon=epsilon, dtype=dtype, rngs=rngs)
