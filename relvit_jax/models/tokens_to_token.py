"""Tokens-to-token: overlapping patches, merged twice, with attention between.

What stands before the blocks of T2T-ViT (Yuan et al., 2021): 7×7 pixels every
4, then twice 3×3 tokens every 2, so that a side of the last grid is 1/16 of
the image's.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from relvit_jax.models import layers, mlp
from relvit_jax.models.stages import SOFT_SPLITS

STRIDE = math.prod(stride for _, stride in SOFT_SPLITS)

# PyTorch's default, which T2T-ViT keeps where ViT has 1e-6.
LAYER_NORM_EPSILON = 1e-5

# Official, whatever the dropout of the blocks is.
PERFORMER_DROPOUT = 0.1

_DIVISION_EPSILON = 1e-8


def unfold(
  x: Float[Array, "B H W C"], size: int, stride: int
) -> Float[Array, "B rows columns F"]:
  """Overlapping windows of size² places, one every `stride`: a soft split.

  Half a stride of zeros surrounds the input, so that there are H / stride rows
  of windows. The F = size² · C values of a window are in the order rows,
  columns, channels; PyTorch's Unfold has the channels first.

  Args:
    x: H and W must be multiples of the stride.
    size: from the stride to twice as much.
    stride: even.
  """
  batch, height, width, channels = x.shape
  rows, columns = height // stride, width // stride
  pad = stride // 2
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  # A window is a block of `stride` and the beginning of the next one: two
  # slices an axis in place of one for each place of the window.
  over = size - stride
  x = x.reshape(batch, -1, columns + 1, stride * channels)
  x = jnp.concatenate([x[:, :, :-1], x[:, :, 1:, : over * channels]], axis=3)
  x = x.reshape(batch, rows + 1, stride, columns, size * channels)
  x = jnp.concatenate([x[:, :-1], x[:, 1:, :over]], axis=2)
  return x.swapaxes(2, 3).reshape(batch, rows, columns, -1)


class TokenPerformer(nnx.Module):
  """One-head attention in time linear in the tokens, then an MLP.

  The exponential kernel is estimated by positive random features
  (Choromanski et al., 2021), half as many as the token is wide. They are drawn
  once and never trained.
  """

  def __init__(
    self,
    in_features: int,
    token_dim: int,
    *,
    dropout_rate: float = PERFORMER_DROPOUT,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    num_features = token_dim // 2
    self.norm1 = _norm(in_features, dtype, rngs)
    self.kqv = layers.linear(in_features, 3 * token_dim, dtype=dtype, rngs=rngs)
    self.proj = layers.linear(token_dim, token_dim, dtype=dtype, rngs=rngs)
    self.norm2 = _norm(token_dim, dtype, rngs)
    self.mlp = mlp.Mlp(token_dim, token_dim, dtype=dtype, rngs=rngs)
    orthogonal = nnx.initializers.orthogonal(num_features**0.5)
    self.w = layers.Fixed(orthogonal(rngs.params(), (num_features, token_dim)))
    self.dropout = nnx.Dropout(dropout_rate)

  def __call__(
    self,
    x: Float[Array, "B T F"],
    *,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> Float[Array, "B T D"]:
    key, query, value = jnp.split(self.kqv(self.norm1(x)), 3, axis=-1)
    key, query = self._features(key), self._features(query)
    summed = jnp.einsum("btm,btd->bmd", key, value.astype(key.dtype))
    mixed = jnp.einsum("btm,bmd->btd", query, summed)
    totals = jnp.einsum("btm,bm->bt", query, key.sum(axis=1))
    mixed = mixed / (totals[:, :, None] + _DIVISION_EPSILON)
    branch = self.proj(mixed.astype(value.dtype))
    # The input is wider than a token: the skip goes around from the value.
    x = value + self.dropout(branch, deterministic=not train, rngs=rngs)
    branch = self.mlp(self.norm2(x))
    return x + self.dropout(branch, deterministic=not train, rngs=rngs)

  def _features(self, x: Float[Array, "B T D"]) -> Float[Array, "B T m"]:
    """exp(w · x - |x|² / 2) / √m, float32: an error here is exponentiated."""
    x = x.astype(jnp.float32)
    w = self.w[...]
    along = jnp.einsum("btd,md->btm", x, w, precision=jax.lax.Precision.HIGHEST)
    half = jnp.sum(x * x, axis=-1, keepdims=True) / 2
    return jnp.exp(along - half) * len(w) ** -0.5


class TokenAttention(nnx.Module):
  """One-head softmax attention from wide inputs to narrower tokens.

  Scores are scaled by the width of the input, not by that of a query: so the
  official code does.
  """

  def __init__(
    self,
    in_features: int,
    token_dim: int,
    *,
    dropout_rate: float = 0.0,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    self.scale = in_features**-0.5
    self.qkv = layers.linear(
      in_features, 3 * token_dim, use_bias=False, dtype=dtype, rngs=rngs
    )
    self.proj = layers.linear(token_dim, token_dim, dtype=dtype, rngs=rngs)
    self.dropout = nnx.Dropout(dropout_rate)

  def __call__(
    self,
    x: Float[Array, "B T F"],
    *,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> Float[Array, "B T D"]:
    query, key, value = jnp.split(self.qkv(x), 3, axis=-1)
    scores = jnp.einsum(
      "bid,bjd->bij", query, key, preferred_element_type=jnp.float32
    )
    weights = jax.nn.softmax(scores * self.scale, axis=-1).astype(value.dtype)
    branch = self.proj(jnp.einsum("bij,bjd->bid", weights, value))
    return value + self.dropout(branch, deterministic=not train, rngs=rngs)


class TokenTransformer(nnx.Module):
  """`TokenAttention`, then an MLP."""

  def __init__(
    self,
    in_features: int,
    token_dim: int,
    *,
    dropout_rate: float = 0.0,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    self.norm1 = _norm(in_features, dtype, rngs)
    self.attn = TokenAttention(
      in_features, token_dim, dropout_rate=dropout_rate, dtype=dtype, rngs=rngs
    )
    self.norm2 = _norm(token_dim, dtype, rngs)
    self.mlp = mlp.Mlp(
      token_dim, token_dim, dropout_rate=dropout_rate, dtype=dtype, rngs=rngs
    )

  def __call__(
    self,
    x: Float[Array, "B T F"],
    *,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> Float[Array, "B T D"]:
    x = self.attn(self.norm1(x), train=train, rngs=rngs)
    return x + self.mlp(self.norm2(x), train=train, rngs=rngs)


# What stands between the splits, and its official dropout.
TOKENS_TYPES = {
  "performer": (TokenPerformer, PERFORMER_DROPOUT),
  "transformer": (TokenTransformer, 0.0),
}


class TokensToToken(nnx.Module):
  """Images → a grid of tokens of a sixteenth of their sides."""

  def __init__(
    self,
    embed_dim: int,
    *,
    token_dim: int = 64,
    tokens_type: str = "performer",
    dropout_rate: float | None = None,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    """Makes the three splits and what stands between them.

    Args:
      embed_dim: width of the tokens that come out.
      token_dim: width of those between the splits.
      tokens_type: "performer" or "transformer".
      dropout_rate: between the splits; None for the official one, 0.1 with
        performers and 0 with transformers.
      dtype: what to compute in.
      rngs: source of the initial weights.

    Raises:
      ValueError: there is no such type, or tokens are too narrow.
    """
    if tokens_type not in TOKENS_TYPES:
      raise ValueError(
        f"tokens_type={tokens_type!r} must be one of {', '.join(TOKENS_TYPES)}"
      )
    if token_dim < 2:
      raise ValueError(
        f"token_dim={token_dim} must be at least 2: half as many are the "
        "random features of a performer"
      )
    make, official_rate = TOKENS_TYPES[tokens_type]
    rate = official_rate if dropout_rate is None else dropout_rate
    (first, _), (second, _), (third, _) = SOFT_SPLITS
    self.attention1, self.attention2 = (
      make(width, token_dim, dropout_rate=rate, dtype=dtype, rngs=rngs)
      for width in (first**2 * 3, second**2 * token_dim)
    )
    self.project = layers.linear(
      third**2 * token_dim, embed_dim, dtype=dtype, rngs=rngs
    )

  @jax.named_scope("embedding")
  def __call__(
    self,
    images: Float[Array, "B H W 3"],
    *,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> Float[Array, "B N D"]:
    x = images
    between = (self.attention1, self.attention2)
    for split, attention in zip(SOFT_SPLITS[:2], between, strict=True):
      x = unfold(x, *split)
      batch, rows, columns, _ = x.shape
      x = attention(
        x.reshape(batch, rows * columns, -1), train=train, rngs=rngs
      )
      x = x.reshape(batch, rows, columns, -1)
    x = self.project(unfold(x, *SOFT_SPLITS[2]))
    return x.reshape(len(x), -1, x.shape[-1])


def _norm(dim: int, dtype: layers.Dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
  return layers.layer_norm(
    dim, epsilon=LAYER_NORM_EPSILON, dtype=dtype, rngs=rngs
  )
