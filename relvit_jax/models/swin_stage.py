"""What a stage of a Swin transformer is made of."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from flax import nnx
from jaxtyping import Array, Float, Shaped

from relvit_jax.models import blocks, layers, mlp, windows

LAYER_NORM_EPSILON = 1e-5


class PatchEmbed(layers.PatchEmbed):
  """A linear map of each patch's RGB pixels, then a LayerNorm."""

  def __init__(
    self,
    patch_size: int,
    embed_dim: int,
    *,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    super().__init__(patch_size, embed_dim, dtype=dtype, rngs=rngs)
    self.norm = layer_norm(embed_dim, dtype=dtype, rngs=rngs)

  def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B N D"]:
    return self.norm(super().__call__(images))


class Stage(nnx.Module):
  """Blocks on one grid, then a merging of patches in all stages but one."""

  def __init__(
    self,
    dim: int,
    num_heads: int,
    grid_size: windows.Grid,
    window: int,
    depth: int,
    *,
    shifts: bool,
    merges: bool,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
    **options: Any,
  ):
    self.blocks = nnx.List(
      [
        Block(
          dim,
          num_heads,
          grid_size,
          window,
          window // 2 if shifts and i % 2 else 0,
          dtype=dtype,
          rngs=rngs,
          **options,
        )
        for i in range(depth)
      ]
    )
    self.downsample = (
      PatchMerging(dim, grid_size, dtype=dtype, rngs=rngs) if merges else None
    )

  def __call__(
    self,
    x: Float[Array, "B N D"],
    *,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
    paths: Sequence[Float[Array, "2 B"] | None] = (),
  ) -> Float[Array, "B M E"]:
    for block, kept in itertools.zip_longest(self.blocks, paths):
      x = block(x, train=train, rngs=rngs, paths=kept)
    return x if self.downsample is None else self.downsample(x)


class Block(blocks.Block):
  """A pre-norm transformer block whose attention stays within windows."""

  def __init__(
    self,
    dim: int,
    num_heads: int,
    grid_size: windows.Grid,
    window: int,
    shift: int,
    *,
    mlp_ratio: float = 4.0,
    relative_bias: bool = True,
    dropout_rate: float = 0.0,
    attention_dropout_rate: float = 0.0,
    recompute_gelu: bool = False,
    block_kernels: bool = False,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    self.norm1 = layer_norm(dim, dtype=dtype, rngs=rngs)
    self.attn = windows.WindowAttention(
      dim,
      num_heads,
      grid_size,
      window,
      shift,
      relative_bias=relative_bias,
      dropout_rate=dropout_rate,
      attention_dropout_rate=attention_dropout_rate,
      dtype=dtype,
      rngs=rngs,
    )
    self.norm2 = layer_norm(dim, dtype=dtype, rngs=rngs)
    self.mlp = mlp.Mlp(
      dim,
      int(dim * mlp_ratio),
      recompute_gelu=recompute_gelu,
      kernels=block_kernels,
      dropout_rate=dropout_rate,
      dtype=dtype,
      rngs=rngs,
    )


class PatchMerging(nnx.Module):
  """Each 2×2 tokens become one of twice the width."""

  def __init__(
    self,
    dim: int,
    grid_size: windows.Grid,
    *,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    self.grid_size = grid_size
    self.norm = layer_norm(4 * dim, dtype=dtype, rngs=rngs)
    self.reduction = layers.linear(
      4 * dim,
      2 * dim,
      use_bias=False,
      dtype=dtype,
      rngs=rngs,
    )

  def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B M E"]:
    return self.reduction(self.norm(fours(x, self.grid_size)))


def fours(
  x: Shaped[Array, "B N D"], grid_size: windows.Grid
) -> Shaped[Array, "B M 4*D"]:
  """The 2×2 tokens that merge side by side, column by column.

  The order is that of the official weights: upper left, lower left, upper
  right, lower right.
  """
  batch, _, dim = x.shape
  rows, columns = grid_size
  x = x.reshape(batch, rows // 2, 2, columns // 2, 2, dim)
  x = x.transpose(0, 1, 3, 4, 2, 5)
  return x.reshape(batch, -1, 4 * dim)


def layer_norm(
  dim: int, *, dtype: layers.Dtype, rngs: nnx.Rngs
) -> nnx.LayerNorm:
  return nnx.LayerNorm(dim, epsilon=LAYER_NORM_EPSILON, dtype=dtype, rngs=rngs)
