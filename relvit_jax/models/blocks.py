"""The transformer block: attention, then an MLP, each beside the tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from relvit_jax.models import attention, layers, mlp, norms, residual_triton


class Stream(NamedTuple):
  """What blocks hand on.

  Attributes:
    x: tokens.
    normalised: the same with mean 0 and variance 1 each, where this is known.
  """

  x: Float[Array, "B N D"]
  normalised: Float[Array, "B N D"] | None = None


class Block(nnx.Module):
  """A pre-norm transformer block; drop-path skips a branch of an image.

  Between their attentions blocks work on rows, a token each: an axis of 65
  tokens would be padded to whole tiles on a TPU, and every layout that avoids
  it costs copies.

  Args:
    kernels: whether GELU, and the sums beside the branches with the norms that
      follow, are kernels of ours for NVIDIA GPUs: `gelu_triton`,
      `residual_triton`, the second only while no dropout acts.
  """

  # Of Swin's blocks, whose windows are joined behind the projection.
  _kernels = False

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
    kernels: bool = False,
    epsilon: float = layers.LAYER_NORM_EPSILON,
    dropout_rate: float = 0.0,
    attention_dropout_rate: float = 0.0,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    norm = functools.partial(
      layers.layer_norm, dim, epsilon=epsilon, dtype=dtype, rngs=rngs
    )
    self._kernels = kernels
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
      kernels=kernels,
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
    return self.through(Stream(x), train=train, rngs=rngs, paths=paths).x

  def through(
    self,
    given: Stream,
    *,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
    paths: Float[Array, "2 B"] | None = None,
  ) -> Stream:
    """The same for tokens of which it may be known how they are normalised."""
    shape, x = given.x.shape, layers.rows(given.x)
    own: dict[str, Any] = {"train": train, "rngs": rngs}
    if self._fuses(train):
      normalised = self.start(given, train=train).normalised
      factors = jnp.ones((2, shape[0])) if paths is None else paths
      for i, (branch, norm) in enumerate(self._branches()):
        assert normalised is not None
        made = branch.unbiased(normalised, norm=norm, is_normalised=True, **own)
        sums: Any = residual_triton.add_and_normalise(
          x, *made, factors[i].astype(jnp.float32), norm.epsilon
        )
        x, normalised = sums
        normalised = normalised.reshape(shape)
      return Stream(x.reshape(shape), normalised)
    for i, (branch, norm) in enumerate(self._branches()):
      made = layers.rows(branch(x.reshape(shape), norm=norm, **own))
      if paths is not None:
        factors = jnp.repeat(paths[i].astype(x.dtype), shape[1])
        made = made * factors[:, None]
      x = x + made
    return Stream(x.reshape(shape))

  def start(self, given: Stream, *, train: bool) -> Stream:
    """With the tokens normalised, if this is what the block reads."""
    if given.normalised is not None or not self._fuses(train):
      return given
    norm, x = self.norm1, given.x
    made = norms.normalised(layers.rows(x), norm.epsilon, norm.dtype or x.dtype)
    return Stream(x, made.reshape(x.shape))

  def _fuses(self, train: bool) -> bool:
    return self._kernels and not (train and self.mlp.dropout.rate > 0)

  def _branches(self) -> tuple[tuple[Any, nnx.LayerNorm], ...]:
    return (self.attn, self.norm1), (self.mlp, self.norm2)


def run(
  blocks: Sequence[Block],
  x: Float[Array, "B N D"],
  paths: Sequence[Float[Array, "2 B"] | None],
  *,
  scan: bool = False,
  train: bool = False,
  rngs: nnx.Rngs | None = None,
) -> Stream:
  """What the last block hands on.

  Args:
    blocks: alike but for their weights.
    x: tokens.
    paths: of each block.
    scan: whether to loop over stacked weights; the same numbers.
    train: as of a block.
    rngs: the same.
  """
  keys = None if rngs is None else jax.random.split(rngs.dropout(), len(blocks))
  stream = blocks[0].start(Stream(x), train=train)

  def through(block: Block, stream: Stream, kept: Any, key: Any) -> Stream:
    own = None if key is None else nnx.Rngs(dropout=key)
    return block.through(stream, train=train, rngs=own, paths=kept)

  if not scan:
    for i, block in enumerate(blocks):
      key = None if keys is None else keys[i]
      stream = through(block, stream, paths[i], key)
    return stream
  graphdef = nnx.graphdef(blocks[0])
  kept = [jnp.ones((2, len(x))) if one is None else one for one in paths]
  weights = [nnx.to_pure_dict(nnx.state(block)) for block in blocks]
  stacked = jax.tree.map(lambda *each: jnp.stack(each), *weights)

  def step(stream: Stream, own: Any) -> tuple[Stream, None]:
    weights, kept, key = own
    block = nnx.merge(graphdef, nnx.State(weights))
    return through(block, stream, kept, key), None

  return jax.lax.scan(step, stream, (stacked, jnp.stack(kept), keys))[0]
