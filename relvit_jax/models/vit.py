"""The plain vision transformer: images → Tokens.

Sizes and details are those of the official RelViT code, which are timm's:
pre-norm, LayerNorm epsilon 1e-6, exact GELU, a bias in the qkv projection,
drop-path growing linearly from 0 in the first block.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from relvit_jax import grid
from relvit_jax.models import layers


class ViT(nnx.Module):
  """Vision transformer (Dosovitskiy et al., 2021).

  Attributes:
    grid_size: (rows, columns) of patches.
    embed_dim: width D of a token.
  """

  def __init__(
    self,
    image_size: tuple[int, int],
    patch_size: int,
    *,
    embed_dim: int,
    depth: int,
    num_heads: int,
    mlp_ratio: float = 4.0,
    pos_embed: bool = True,
    cls_token: bool = True,
    dropout_rate: float = 0.0,
    attention_dropout_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    self.image_size = image_size
    self.grid_size = grid.grid_of(image_size, patch_size)
    self.embed_dim = embed_dim
    num_tokens = self.grid_size[0] * self.grid_size[1] + cls_token
    self.patch_embed = layers.PatchEmbed(
      patch_size, embed_dim, dtype=dtype, rngs=rngs
    )
    init = layers.TRANSFORMER_INIT
    self.cls_token = (
      nnx.Param(init(rngs.params(), (1, 1, embed_dim))) if cls_token else None
    )
    self.pos_embed = (
      nnx.Param(init(rngs.params(), (1, num_tokens, embed_dim)))
      if pos_embed
      else None
    )
    self._add_blocks(
      depth,
      num_heads,
      mlp_ratio,
      dropout_rate=dropout_rate,
      attention_dropout_rate=attention_dropout_rate,
      drop_path_rate=drop_path_rate,
      dtype=dtype,
      rngs=rngs,
    )

  def _add_blocks(
    self,
    depth: int,
    num_heads: int,
    mlp_ratio: float,
    *,
    qkv_bias: bool = True,
    epsilon: float = layers.LAYER_NORM_EPSILON,
    dropout_rate: float,
    attention_dropout_rate: float,
    drop_path_rate: float,
    dtype: layers.Dtype,
    rngs: nnx.Rngs,
  ) -> None:
    """Makes what follows the embedding."""
    self.dropout = nnx.Dropout(dropout_rate)
    self.blocks = nnx.List(
      [
        layers.Block(
          self.embed_dim,
          num_heads,
          mlp_ratio,
          qkv_bias=qkv_bias,
          epsilon=epsilon,
          dropout_rate=dropout_rate,
          attention_dropout_rate=attention_dropout_rate,
          drop_path_rate=float(rate),
          dtype=dtype,
          rngs=rngs,
        )
        for rate in np.linspace(0, drop_path_rate, depth)
      ]
    )
    self.norm = layers.layer_norm(
      self.embed_dim, epsilon=epsilon, dtype=dtype, rngs=rngs
    )

  @property
  def num_features(self) -> int:
    """Width of `features`: D with a class token, N · D without."""
    if self.cls_token is not None:
      return self.embed_dim
    return self.grid_size[0] * self.grid_size[1] * self.embed_dim

  def features(self, tokens: layers.Tokens) -> Float[Array, "B F"]:
    """What a classifier reads: the class token, or all patches flattened."""
    if tokens.cls is not None:
      return tokens.cls
    return tokens.patches.reshape(len(tokens.patches), -1)

  def __call__(
    self,
    images: Float[Array, "B H W C"],
    *,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> layers.Tokens:
    x = self._embed(images, train=train, rngs=rngs)
    for block in self.blocks:
      x = block(x, train=train, rngs=rngs)
    return self._tokens(self.norm(x))

  def last_tokens(
    self, images: Float[Array, "B H W C"], num_blocks: int
  ) -> list[layers.Tokens]:
    """Normalised tokens after each of the last blocks, the last one last."""
    self._check_block(num_blocks - 1, f"num_blocks={num_blocks}")
    x = self._embed(images)
    outputs = []
    for block in self.blocks:
      x = block(x)
      outputs.append(x)
    return [self._tokens(self.norm(x)) for x in outputs[-num_blocks:]]

  def attention(
    self, images: Float[Array, "B H W C"], block: int = -1
  ) -> Float[Array, "B heads T T"]:
    """What each token attends to in a block; the class token, if any, first."""
    index = block + len(self.blocks) if block < 0 else block
    self._check_block(index, f"block={block}")
    x = self._embed(images)
    for earlier in list(self.blocks)[:index]:
      x = earlier(x)
    chosen = self.blocks[index]
    return chosen.attn.weights(chosen.norm1(x))

  def _embed(
    self,
    images: Float[Array, "B H W C"],
    *,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> Float[Array, "B T D"]:
    if images.shape[1:] != (*self.image_size, 3):
      height, width = self.image_size
      raise ValueError(
        f"images of shape {images.shape} are not [B, {height}, {width}, 3], "
        "for which this model was made"
      )
    x = self._patch_tokens(images, train, rngs)
    if self.cls_token is not None:
      first = jnp.broadcast_to(self.cls_token[...], (len(x), 1, self.embed_dim))
      x = jnp.concatenate([first.astype(x.dtype), x], axis=1)
    if self.pos_embed is not None:
      x = x + self.pos_embed[...].astype(x.dtype)
    return self.dropout(x, deterministic=not train, rngs=rngs)

  def _patch_tokens(
    self, images: Float[Array, "B H W 3"], train: bool, rngs: nnx.Rngs | None
  ) -> Float[Array, "B N D"]:
    """One token a patch; T2T-ViT has others, with dropout of their own."""
    del train, rngs
    return self.patch_embed(images)

  def _tokens(self, x: Float[Array, "B T D"]) -> layers.Tokens:
    if self.cls_token is None:
      return layers.Tokens(x, None)
    return layers.Tokens(x[:, 1:], x[:, 0])

  def _check_block(self, index: int, given: str) -> None:
    if not 0 <= index < len(self.blocks):
      raise ValueError(f"{given} is not among the {len(self.blocks)} blocks")
