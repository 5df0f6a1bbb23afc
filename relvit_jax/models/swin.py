"""The Swin transformer: images → Tokens, by attention within windows.

Sizes and details are those of the official code, as RelViT uses it: LayerNorm
epsilon 1e-5, exact GELU, a bias in the qkv projection and for each offset
between two tokens, none in the reduction between stages; tokens leave through
the last LayerNorm, and the classifier reads their average. Every second block
of a stage shifts its windows by half of one. Liu et al., "Swin Transformer:
Hierarchical Vision Transformer using Shifted Windows", ICCV 2021.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from relvit_jax.models import layers, stages, swin_stage


class Swin(nnx.Module):
  """Swin transformer, version 1.

  Attributes:
    grid_size: (rows, columns) of tokens after the last stage: those of the
      image divided by patch_size · 2^(stages - 1), 32 pixels for the variants.
    embed_dim: width D of a token after the last stage.
    num_features: width of `features`, which is D.
  """

  def __init__(
    self,
    image_size: tuple[int, int],
    patch_size: int,
    *,
    embed_dim: int,
    depth: Sequence[int],
    num_heads: Sequence[int],
    window_size: int,
    mlp_ratio: float = 4.0,
    pos_embed: bool = True,
    dropout_rate: float = 0.0,
    attention_dropout_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    recompute_gelu: bool = False,
    block_kernels: bool = False,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    """Makes a backbone with random weights.

    Args:
      image_size: (height, width), pixels.
      patch_size: pixels a side of a token of the first stage.
      embed_dim: width of the first stage; each further one has twice that of
        the one before, and half the rows and columns.
      depth: blocks of each stage.
      num_heads: heads of each stage.
      window_size: tokens a side of a window. A later stage whose grid is no
        larger has windows of that grid's shorter side, and none is shifted.
      mlp_ratio: hidden width of the MLPs, in widths of their stage.
      pos_embed: whether attention adds a learned bias for the offset between
        two tokens. The official code always does, so that its pre-training
        can read off some of what it asks for.
      dropout_rate: of embeddings and of what each branch returns.
      attention_dropout_rate: of attention weights.
      drop_path_rate: of the last block; it grows linearly from 0 in the first
        one over all stages. The RelViT code has 0.1.
      recompute_gelu: as of `mlp.Mlp`.
      block_kernels: `kernels` of `mlp.Mlp`.
      dtype: what to compute in; None for float32.
      rngs: source of the initial weights.

    Raises:
      ValueError: sizes do not fit each other.
    """
    _check_stages(embed_dim, depth, num_heads)
    grids = stages.stage_grids(image_size, patch_size, len(depth))
    sides = stages.window_sizes(grids, window_size)
    self.image_size = image_size
    self.grid_size = grids[-1]
    self.embed_dim = self.num_features = embed_dim * 2 ** (len(depth) - 1)
    self.patch_embed = swin_stage.PatchEmbed(
      patch_size, embed_dim, dtype=dtype, rngs=rngs
    )
    self.dropout = nnx.Dropout(dropout_rate)
    self.drop_path_rates = np.linspace(0, drop_path_rate, sum(depth)).tolist()
    self.layers = nnx.List(
      [
        swin_stage.Stage(
          embed_dim * 2**i,
          num_heads[i],
          grids[i],
          sides[i],
          depth[i],
          shifts=min(grids[i]) > window_size,
          merges=i + 1 < len(depth),
          mlp_ratio=mlp_ratio,
          relative_bias=pos_embed,
          dropout_rate=dropout_rate,
          attention_dropout_rate=attention_dropout_rate,
          recompute_gelu=recompute_gelu,
          block_kernels=block_kernels,
          dtype=dtype,
          rngs=rngs,
        )
        for i in range(len(depth))
      ]
    )
    self.norm = swin_stage.layer_norm(self.embed_dim, dtype=dtype, rngs=rngs)

  def features(self, tokens: layers.Tokens) -> Float[Array, "B F"]:
    """What a classifier reads: the average of the tokens."""
    return tokens.patches.mean(axis=1)

  def __call__(
    self,
    images: Float[Array, "B H W C"],
    *,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> layers.Tokens:
    x = self._embed(images)
    x = self.dropout(x, deterministic=not train, rngs=rngs)
    paths = layers.draw_paths(rngs, self.drop_path_rates, len(x), train)
    for stage in self.layers:
      own = list(itertools.islice(paths, len(stage.blocks)))
      x = stage(x, train=train, rngs=rngs, paths=own)
    return self._tokens(x)

  def last_tokens(
    self, images: Float[Array, "B H W C"], num_blocks: int
  ) -> list[layers.Tokens]:
    """Normalised tokens after each of the last blocks, the last one last.

    Raises:
      ValueError: so many blocks reach into an earlier stage, whose tokens
        have another grid and width.
    """
    depth = len(self.layers[-1].blocks)
    if not 1 <= num_blocks <= depth:
      raise ValueError(
        f"num_blocks={num_blocks} is not among the {depth} blocks of the last "
        "stage; those of earlier stages have other grids and widths"
      )
    steps = list(self._steps(images))[-num_blocks:]
    return [self._tokens(after) for _, _, after in steps]

  def attention(
    self, images: Float[Array, "B H W C"], block: int = -1
  ) -> Float[Array, "B heads N N"]:
    """What the tokens of a block's own grid attend to: 0 outside a window.

    Args:
      images: normalised.
      block: counted over all stages. N² grows with the fourth power of the
        image's side: at 224 pixels it is 3136² in the first stage, 49² in the
        last.

    Raises:
      ValueError: there is no such block.
    """
    count = sum(len(stage.blocks) for stage in self.layers)
    index = block + count if block < 0 else block
    if not 0 <= index < count:
      raise ValueError(f"block={block} is not among the {count} blocks")
    steps = itertools.islice(self._steps(images), index, None)
    chosen, before, _ = next(steps)
    return chosen.attn.weights(chosen.norm1(before))

  def _steps(
    self, images: Float[Array, "B H W C"]
  ) -> Iterator[tuple[swin_stage.Block, Array, Array]]:
    """Every block in turn with the tokens before and after it."""
    x = self._embed(images)
    for stage in self.layers:
      for block in stage.blocks:
        after = block(x)
        yield block, x, after
        x = after
      x = x if stage.downsample is None else stage.downsample(x)

  def _tokens(self, x: Float[Array, "B N D"]) -> layers.Tokens:
    """`local` are those of the last stage before the last LayerNorm."""
    return layers.Tokens(self.norm(x), None, x)

  def _embed(self, images: Float[Array, "B H W C"]) -> Float[Array, "B N D"]:
    if images.shape[1:] != (*self.image_size, 3):
      height, width = self.image_size
      raise ValueError(
        f"images of shape {images.shape} are not [B, {height}, {width}, 3], "
        "for which this model was made"
      )
    return self.patch_embed(images)


def _check_stages(
  embed_dim: int, depth: Sequence[int], num_heads: Sequence[int]
) -> None:
  if not depth or len(depth) != len(num_heads):
    raise ValueError(
      f"depth={depth} and num_heads={num_heads} must have one number for each "
      "of the same stages"
    )
  for i, heads in enumerate(num_heads):
    if embed_dim * 2**i % heads:
      raise ValueError(
        f"num_heads={num_heads}: {heads} must divide {embed_dim * 2**i}, the "
        f"width of stage {i} with embed_dim={embed_dim}"
      )
