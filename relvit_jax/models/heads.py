"""What RelViT asks of the tokens: one small head a task."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from relvit_jax.models import layers


class PairwiseHead(nnx.Module):
  """R scores for every ordered pair of patches, all pairs at once.

  Score r of the pair (i, j) is the scaled product of the r-th query of patch
  i and the r-th key of patch j. As in the official code, the R projections
  share the width, have no bias, and there is no value projection.
  """

  def __init__(
    self,
    dim: int,
    num_scores: int,
    *,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    if dim < num_scores:
      raise ValueError(
        f"embed_dim={dim} is too narrow for {num_scores} scores a pair: each "
        "needs a query at least one wide"
      )
    self.num_scores = num_scores
    self.query, self.key = (
      nnx.Linear(
        dim,
        dim // num_scores * num_scores,
        use_bias=False,
        kernel_init=layers.TORCH_INIT,
        dtype=dtype,
        rngs=rngs,
      )
      for _ in range(2)
    )

  def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B R N N"]:
    split = (*tokens.shape[:2], self.num_scores, -1)
    query = self.query(tokens).reshape(split)  # [B, N, R, D // R]
    key = self.key(tokens).reshape(split)
    scores = jnp.einsum(
      "bird,bjrd->brij", query, key, preferred_element_type=jnp.float32
    )
    return scores * query.shape[-1] ** -0.5


class PositionHead(nnx.Module):
  """For every token a score for every place of the grid."""

  def __init__(
    self,
    dim: int,
    num_patches: int,
    *,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    self.proj = layers.torch_linear(dim, num_patches, dtype=dtype, rngs=rngs)

  def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N N"]:
    return self.proj(tokens).astype(jnp.float32)


class LabelHead(nnx.Module):
  """Class scores from one vector an image."""

  def __init__(
    self,
    dim: int,
    num_classes: int,
    *,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    self.proj = layers.torch_linear(dim, num_classes, dtype=dtype, rngs=rngs)

  def __call__(self, features: Float[Array, "B D"]) -> Float[Array, "B C"]:
    return self.proj(features).astype(jnp.float32)
