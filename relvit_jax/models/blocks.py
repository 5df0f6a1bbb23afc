"""The transformer block: attention, then an MLP, each beside the tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from relvit_jax.models import attention, layers, mlp


class Block(nnx.Module):
  """A pre-norm transformer block; drop-path skips a branch of an image.

  Between their attentions blocks work on rows, a token each: an axis of 65
  tokens would be padded to whole tiles on a TPU, and every layout that avoids
  it costs copies.
  """

  def __init__(
    self,
    dim: int,
    num_heads: int,
    mlp_ratio: float,
    *,
    qkv_bias: bool = True,
    mask: str | None = None,
    implementation: str = "einsum",
    recompute_gelu: bool = False,
    epsilon: float = layers.LAYER_NORM_EPSILON,
    dropout_rate: float = 0.0,
    attention_dropout_rate: float = 0.0,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    norm = functools.partial(
      layers.layer_norm, dim, epsilon=epsilon, dtype=dtype, rngs=rngs
    )
    self.norm1 = norm()
    self.attn = attention.Attention(
      dim,
      num_heads,
      qkv_bias=qkv_bias,
      mask=mask,
      implementation=implementation,
      dropout_rate=dropout_rate,
      attention_dropout_rate=attention_dropout_rate,
      dtype=dtype,
      rngs=rngs,
    )
    self.norm2 = norm()
    self.mlp = mlp.Mlp(
      dim,
      int(dim * mlp_ratio),
      recompute_gelu=recompute_gelu,
      dropout_rate=dropout_rate,
      dtype=dtype,
      rngs=rngs,
    )

  def __call__(
    self,
    x: Float[Array, "B N D"],
    *,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
    paths: Float[Array, "2 B"] | None = None,
  ) -> Float[Array, "B N D"]:
    """The tokens after the block.

    Args:
      x: tokens.
      train: whether dropout acts; it then draws from `rngs`.
      rngs: with a stream `dropout`.
      paths: what attention and MLP of each image are multiplied with; of
        `layers.draw_paths`.
    """
    shape, x = x.shape, layers.rows(x)

    def added(x: Array, branch: Array, path: int) -> Array:
      branch = layers.rows(branch)
      if paths is None:
        return x + branch
      factors = jnp.repeat(paths[path].astype(x.dtype), shape[1])
      return x + branch * factors[:, None]

    own: dict[str, Any] = {"train": train, "rngs": rngs}
    x = added(x, self.attn(x.reshape(shape), norm=self.norm1, **own), 0)
    x = added(x, self.mlp(x.reshape(shape), norm=self.norm2, **own), 1)
    return x.reshape(shape)


def run(
  blocks: Sequence[Block],
  x: Float[Array, "B N D"],
  paths: Sequence[Float[Array, "2 B"] | None],
  *,
  scan: bool = False,
  train: bool = False,
  rngs: nnx.Rngs | None = None,
) -> Float[Array, "B N D"]:
  """The tokens after all blocks.

  Args:
    blocks: alike but for their weights.
    x: tokens.
    paths: of each block.
    scan: whether to loop over stacked weights; the same numbers.
    train: as of a block.
    rngs: the same.
  """
  keys = None if rngs is None else jax.random.split(rngs.dropout(), len(blocks))

  def through(block: Block, x: Array, kept: Any, key: Any) -> Array:
    own = None if key is None else nnx.Rngs(dropout=key)
    return block(x, train=train, rngs=own, paths=kept)

  if not scan:
    for i, block in enumerate(blocks):
      x = through(block, x, paths[i], None if keys is None else keys[i])
    return x
  graphdef = nnx.graphdef(blocks[0])
  kept = [jnp.ones((2, len(x))) if one is None else one for one in paths]
  weights = [nnx.to_pure_dict(nnx.state(block)) for block in blocks]
  stacked = jax.tree.map(lambda *each: jnp.stack(each), *weights)

  def step(x: Array, own: Any) -> tuple[Array, None]:
    weights, kept, key = own
    block = nnx.merge(graphdef, nnx.State(weights))
    return through(block, x, kept, key), None

  return jax.lax.scan(step, x, (stacked, jnp.stack(kept), keys))[0]
