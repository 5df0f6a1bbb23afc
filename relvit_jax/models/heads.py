"""What RelViT asks of the tokens: one small head a task."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from relvit_jax.models import layers
from relvit_jax.models.variants import DRLOC_MODES


class Projections(NamedTuple):
  """What the scores of all pairs of patches follow from, without the pairs.

  Attributes:
    query: of the first patch of a pair, one for each of R scores.
    key: of the second.
  """

  query: Float[Array, "B N R d"]
  key: Float[Array, "B N R d"]


def pair_scores(
  query: Float[Array, "B n R d"], key: Float[Array, "B N R d"]
) -> Float[Array, "B R n N"]:
  """Scaled products of some patches' queries with all keys, float32."""
  scores = jnp.einsum(
    "bird,bjrd->brij", query, key, preferred_element_type=jnp.float32
  )
  return scores * query.shape[-1] ** -0.5


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
    return pair_scores(*self.project(tokens))

  def project(self, tokens: Float[Array, "B N D"]) -> Projections:
    """Queries and keys, each [B, N, R, D // R]."""
    return self.split(*layers.side_by_side(self.linears, tokens))

  @property
  def linears(self) -> tuple[nnx.Linear, ...]:
    """The layers that read the tokens."""
    return self.query, self.key

  def split(
    self, query: Float[Array, "B N F"], key: Float[Array, "B N F"]
  ) -> Projections:
    """What the layers made, by score."""
    shape = (*query.shape[:2], self.num_scores, -1)
    return Projections(query.reshape(shape), key.reshape(shape))


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
    return self.scores(*layers.side_by_side(self.linears, tokens))

  @property
  def linears(self) -> tuple[nnx.Linear, ...]:
    """The layers that read the tokens."""
    return (self.proj,)

  def scores(self, made: Float[Array, "B N N"]) -> Float[Array, "B N N"]:
    """What the layer made, float32."""
    return made.astype(jnp.float32)


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


class DenseRelativeLocalisation(nnx.Module):
  """How far apart two patches sit, from their tokens (Liu et al., 2021).

  An MLP of the two tokens, first and second, next to each other, as in the
  code of yhlleo/VTs-Drloc: two hidden layers where the paper draws one.

  Args:
    dim: width D of a token.
    grid_size: (rows, columns) of patches.
    mode: "l1" predicts the two differences, in rows and in columns, as
      numbers; "ce" and "cbr" score every difference that there is.
    use_abs: whether the sign of a difference is left out; decides how many
      differences there are.
    hidden_dim: width of the hidden layers.
  """

  def __init__(
    self,
    dim: int,
    grid_size: tuple[int, int],
    mode: str = "l1",
    use_abs: bool = True,
    *,
    hidden_dim: int = 512,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    if mode not in DRLOC_MODES:
      raise ValueError(
        f"mode={mode!r} does not exist; there are {', '.join(DRLOC_MODES)}"
      )
    self.grid_size = grid_size
    self.mode = mode

    def linear(in_features: int, out_features: int) -> nnx.Linear:
      return layers.linear(in_features, out_features, dtype=dtype, rngs=rngs)

    last = 2 if mode == "l1" else hidden_dim
    widths = (2 * dim, hidden_dim, hidden_dim, last)
    self.layers = nnx.List(
      [linear(*pair) for pair in itertools.pairwise(widths)]
    )
    # Scores of rows, then of columns; a shorter side leaves some unused.
    longest = max(grid_size)
    num_classes = longest if use_abs else 2 * longest - 1
    self.unshared = nnx.List(
      [] if mode == "l1" else [linear(last, num_classes) for _ in range(2)]
    )

  def __call__(
    self,
    tokens: Float[Array, "B N D"],
    first: Int[Array, "B m 2"],
    second: Int[Array, "B m 2"],
  ) -> Float[Array, "B*m ..."]:
    """Predictions for m pairs of an image.

    Args:
      tokens: of the patches, in reading order.
      first: (row, column) of one patch of each pair.
      second: of the other.

    Returns:
      [B·m, 2] for "l1", else scores [B·m, K, 2] of K differences; rows come
      before columns. What they should be: `objectives.drloc`.
    """
    rows, columns = self.grid_size
    if tokens.shape[1] != rows * columns:
      raise ValueError(
        f"tokens of shape {tokens.shape} do not belong to grid_size="
        f"({rows}, {columns}), which has {rows * columns} patches"
      )
    # Products with 0 and 1 and not a gather: the gradient of a gather adds in
    # no fixed order on a GPU.
    ends = [
      jnp.einsum(
        "bmn,bnd->bmd",
        jax.nn.one_hot(
          pair[..., 0] * columns + pair[..., 1],
          rows * columns,
          dtype=tokens.dtype,
        ),
        tokens,
        precision=jax.lax.Precision.HIGHEST,
      )
      for pair in (first, second)
    ]
    x = jnp.concatenate(ends, axis=-1).reshape(-1, 2 * tokens.shape[-1])
    for layer in self.layers[:-1]:
      x = jax.nn.relu(layer(x))
    x = self.layers[-1](x)
    if self.mode != "l1":
      x = jnp.stack([scores(x) for scores in self.unshared], axis=-1)
    return x.astype(jnp.float32)
