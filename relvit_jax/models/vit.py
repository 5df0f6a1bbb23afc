"""The plain vision transformer: images → Tokens.

Sizes and details are those of the official RelViT code, which are timm's:
pre-norm, LayerNorm epsilon 1e-6, exact GELU, a bias in the qkv projection,
drop-path growing linearly from 0 in the first block.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from relvit_jax import grid
from relvit_jax.models import blocks, layers, norms
from relvit_jax.models.attention import attention_mask as check_mask
from relvit_jax.models.variants import POS_EMBED_TYPES


class ViT(nnx.Module):
  """Vision transformer (Dosovitskiy et al., 2021).

  Attributes:
    grid_size: (rows, columns) of patches.
    embed_dim: width D of a token.
    pos_embed: [1, T, D] to train, or sinusoids that are not, or None.
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
    qkv_bias: bool = True,
    pos_embed: bool = True,
    pos_embed_type: str = "learned",
    cls_token: bool = True,
    attention_mask: str | None = None,
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
    """Makes a backbone with random weights.

    Args:
      image_size: (height, width), pixels.
      patch_size: pixels; it must divide both.
      embed_dim: width D of a token.
      depth: blocks.
      num_heads: of each block; it must divide D.
      mlp_ratio: hidden width of the MLPs, in D.
      qkv_bias: whether query, key and value have a bias.
      pos_embed: whether tokens get positional embeddings.
      pos_embed_type: "learned", or "sinusoidal" for fixed ones. The official
        code has these, too, but no flag for them, and overwrites them with
        random numbers as soon as they are made.
      cls_token: whether there is a class token; it is the first.
      attention_mask: in all blocks, also while testing: "diagonal" lets a
        token attend to itself alone, "diagonal_cls_row" does except for the
        class token, which attends to all. None: all attend to all.
      dropout_rate: of embeddings and of what each branch returns.
      attention_dropout_rate: of attention weights.
      drop_path_rate: of the last block; it grows linearly from 0.
      attention: how it is computed, `implementation` of `attention.Attention`.
      recompute_gelu: as of `mlp.Mlp`.
      block_kernels: `kernels` of `blocks.Block`.
      scan_layers: whether the blocks are compiled once and looped over, which
        compiles faster and runs slower; the same weights and numbers.
      dtype: what to compute in; None for float32.
      rngs: source of the initial weights.

    Raises:
      ValueError: sizes or options do not fit each other.
    """
    _check_options(pos_embed, pos_embed_type, cls_token, attention_mask)
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
    shape = (1, num_tokens, embed_dim)
    self.pos_embed = (
      _positions(pos_embed_type, shape, rngs) if pos_embed else None
    )
    self._add_blocks(
      depth,
      num_heads,
      mlp_ratio,
      qkv_bias=qkv_bias,
      mask=attention_mask,
      implementation=attention,
      recompute_gelu=recompute_gelu,
      kernels=block_kernels,
      scan_layers=scan_layers,
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
    epsilon: float = layers.LAYER_NORM_EPSILON,
    scan_layers: bool,
    dropout_rate: float,
    drop_path_rate: float,
    dtype: layers.Dtype,
    rngs: nnx.Rngs,
    **options: Any,
  ) -> None:
    """Makes what follows the embedding; `options` are those of a block."""
    shared = {"epsilon": epsilon, "dtype": dtype, "rngs": rngs}
    options = options | shared | {"dropout_rate": dropout_rate}
    self.dropout = nnx.Dropout(dropout_rate)
    self.blocks = nnx.List(
      [
        blocks.Block(self.embed_dim, num_heads, mlp_ratio, **options)
        for _ in range(depth)
      ]
    )
    self.drop_path_rates = np.linspace(0, drop_path_rate, depth).tolist()
    self.scan_layers = scan_layers
    self.norm = layers.layer_norm(self.embed_dim, **shared)

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
    paths = layers.draw_paths(rngs, self.drop_path_rates, len(x), train)
    stream = blocks.run(
      list(self.blocks),
      x,
      list(paths),
      scan=self.scan_layers,
      train=train,
      rngs=rngs,
    )
    return self._tokens(stream)

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
    return [self._tokens(blocks.Stream(x)) for x in outputs[-num_blocks:]]

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

  def _tokens(self, stream: blocks.Stream) -> layers.Tokens:
    """`local` are those before the last LayerNorm."""
    x = stream.x
    if stream.normalised is None:
      normalised = self.norm(x)
    else:
      normalised = norms.scaled(self.norm, stream.normalised)
    if self.cls_token is None:
      return layers.Tokens(normalised, None, x)
    return layers.Tokens(normalised[:, 1:], normalised[:, 0], x[:, 1:])

  def _check_block(self, index: int, given: str) -> None:
    if not 0 <= index < len(self.blocks):
      raise ValueError(f"{given} is not among the {len(self.blocks)} blocks")


def _positions(
  kind: str, shape: tuple[int, int, int], rngs: nnx.Rngs
) -> nnx.Variable:
  if kind == "sinusoidal":
    return layers.Fixed(jnp.asarray(sinusoids(*shape[1:])))
  return nnx.Param(layers.TRANSFORMER_INIT(rngs.params(), shape))


def sinusoids(num_tokens: int, dim: int) -> Float[np.ndarray, "1 T D"]:
  """sin(t / 10000^(i / D)) at the even i, and its cosine at i + 1."""
  column = np.arange(dim)
  angles = np.arange(num_tokens)[:, None] / 10000 ** (column // 2 * 2 / dim)
  table = np.where(column % 2, np.cos(angles), np.sin(angles))
  return table[None].astype(np.float32)


def _check_options(
  pos_embed: bool,
  pos_embed_type: str,
  cls_token: bool,
  attention_mask: str | None,
) -> None:
  if pos_embed_type not in POS_EMBED_TYPES:
    raise ValueError(
      f"pos_embed_type={pos_embed_type!r} does not exist; there are "
      f"{', '.join(POS_EMBED_TYPES)}"
    )
  if pos_embed_type != "learned" and not pos_embed:
    raise ValueError(
      f"pos_embed_type={pos_embed_type!r} needs pos_embed=True: without, there "
      "are no positional embeddings of any type"
    )
  if attention_mask is not None:
    check_mask(attention_mask, 1)
  if attention_mask == "diagonal_cls_row" and not cls_token:
    raise ValueError(
      "attention_mask='diagonal_cls_row' needs cls_token=True: it is the class "
      "token that attends to all"
    )
