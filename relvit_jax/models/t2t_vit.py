"""T2T-ViT (Yuan et al., 2021): a ViT whose patches overlap and are merged.

As the official RelViT code runs it: LayerNorm epsilon 1e-5, no bias in the qkv
projection of the blocks, fixed sinusoids for positions, and patch tokens that
are pooled to half their grid for the heads, 14×14 to 7×7 at 224 pixels.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from relvit_jax.models import blocks, layers, tokens_to_token, vit

STRIDE = tokens_to_token.STRIDE


class T2TViT(vit.ViT):
  """A ViT behind tokens-to-token.

  Attributes:
    token_grid: (rows, columns) of the tokens in the blocks, with which
      `attention` deals.
    grid_size: (rows, columns) of the pooled patches that come out.
    embed_dim: width D of a token.
    pos_embed: the sinusoids [1, T, D], or None. They are not trained.
  """

  def __init__(
    self,
    image_size: tuple[int, int],
    *,
    embed_dim: int,
    depth: int,
    num_heads: int,
    mlp_ratio: float = 3.0,
    token_dim: int = 64,
    tokens_type: str = "performer",
    token_dropout_rate: float | None = None,
    pos_embed: bool = True,
    cls_token: bool = True,
    dropout_rate: float = 0.0,
    attention_dropout_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    attention: str = "einsum",
    recompute_gelu: bool = False,
    block_kernels: bool = False,
    scan_layers: bool = False,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    self.image_size = image_size
    self.token_grid = _token_grid(image_size)
    rows, columns = self.token_grid
    self.grid_size = (rows + 1) // 2, (columns + 1) // 2
    self.embed_dim = embed_dim
    self.tokens_to_token = tokens_to_token.TokensToToken(
      embed_dim,
      token_dim=token_dim,
      tokens_type=tokens_type,
      dropout_rate=token_dropout_rate,
      dtype=dtype,
      rngs=rngs,
    )
    init = layers.TRANSFORMER_INIT
    self.cls_token = (
      nnx.Param(init(rngs.params(), (1, 1, embed_dim))) if cls_token else None
    )
    table = vit.sinusoids(rows * columns + cls_token, embed_dim)
    self.pos_embed = layers.Fixed(jnp.asarray(table)) if pos_embed else None
    self._add_blocks(
      depth,
      num_heads,
      mlp_ratio,
      qkv_bias=False,
      implementation=attention,
      recompute_gelu=recompute_gelu,
      kernels=block_kernels,
      scan_layers=scan_layers,
      epsilon=tokens_to_token.LAYER_NORM_EPSILON,
      dropout_rate=dropout_rate,
      attention_dropout_rate=attention_dropout_rate,
      drop_path_rate=drop_path_rate,
      dtype=dtype,
      rngs=rngs,
    )

  def _patch_tokens(
    self, images: Float[Array, "B H W 3"], train: bool, rngs: nnx.Rngs | None
  ) -> Float[Array, "B N D"]:
    return self.tokens_to_token(images, train=train, rngs=rngs)

  def _tokens(self, stream: blocks.Stream) -> layers.Tokens:
    """`local` are the patches: normalised and pooled."""
    tokens = super()._tokens(stream)
    pooled = pool(tokens.patches, self.token_grid)
    return layers.Tokens(pooled, tokens.cls, pooled)


def pool(
  patches: Float[Array, "B N D"], grid_size: tuple[int, int]
) -> Float[Array, "B M D"]:
  """Means over 3×3 patches around every second one, in both directions.

  What lies outside of the grid counts for nothing. Of n rows (n + 1) // 2
  remain.
  """
  batch, _, dim = patches.shape
  pooled = nnx.avg_pool(
    patches.reshape(batch, *grid_size, dim),
    (3, 3),
    strides=(2, 2),
    padding=((1, 1), (1, 1)),  # pyright: ignore[reportArgumentType]
    count_include_pad=False,
  )
  return pooled.reshape(batch, -1, dim)


def _token_grid(image_size: tuple[int, int]) -> tuple[int, int]:
  height, width = image_size
  if min(image_size) < STRIDE or height % STRIDE or width % STRIDE:
    raise ValueError(
      f"image_size={height}×{width} must be multiples of {STRIDE} pixels for "
      "T2T-ViT, such as 224×224"
    )
  return height // STRIDE, width // STRIDE
