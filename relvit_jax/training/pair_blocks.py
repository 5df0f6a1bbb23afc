"""The pair tasks judged block by block: how a stage does so, and when."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float
from numpy.typing import ArrayLike

from relvit_jax.models import heads
from relvit_jax.training import pair_pass, pair_tasks

# Patches from which on `rows_of` chooses blocks, and their rows: 28×28. Blocks
# of 128 rows take the time of all pairs at once and a part of the memory;
# below, there is little to save, and a device that is wide may lose time.
# Losses, metrics and gradients of queries and keys of 8 permuted images,
# relation, distance and angle, float32, D = 384; two cores of a Zen 5 EPYC, not
# undisturbed, JAX 0.10.2, 2026-11-23; medians of runs in turns:
#   patches     64     196     256    784    1024
#   dense      1.9 ms   33 ms   50 ms  0.38 s  0.99 s
#              5 MB     52 MB   88 MB  846 MB  1,443 MB
#   blocks     1.9 ms   32 ms   52 ms  0.39 s  0.67 s
#              6 MB     23 MB   37 MB  99 MB   144 MB
# At 784, blocks of 64 rows take 0.48 s and 63 MB, of 256 0.37 s and 159 MB.
BLOCKWISE_FROM = 784
ROWS = 128


@struct.dataclass
class Answered:
  """What a batch's answers to one pair task are worth.

  Attributes:
    loss: [B], of the pairs that are kept, over all N².
    kept: [B], their share.
    score: [B], the mean of `pair_tasks.scores`, which has no gradient.
    smoothing, dropout: what the loss was taken with.
  """

  loss: Any
  kept: Any
  score: Any
  smoothing: float = struct.field(pytree_node=False, default=0.0)
  dropout: float = struct.field(pytree_node=False, default=0.0)

  def check(self, smoothing: float, dropout: float) -> None:
    """Raises where a loss is wanted that is not this one."""
    for name, own, wanted in (
      ("smoothing", self.smoothing, smoothing),
      ("dropout", self.dropout, dropout),
    ):
      if own != wanted:
        raise ValueError(
          f"relation_{name}={wanted}, but the blocks were answered with {own}"
        )

  def mean(self, mask: Bool[Any, " B"] | None = None) -> Float[Array, ""]:
    """The loss over what is kept of the images that count."""
    loss, kept = self.loss, self.kept
    if mask is not None:
      # Not a product with 0: what does not count may be NaN.
      loss, kept = jnp.where(mask, loss, 0), jnp.where(mask, kept, 0)
    share = jnp.sum(kept)
    return jnp.sum(loss) / jnp.where(share > 0, share, 1)


@dataclasses.dataclass(frozen=True)
class PairBlocks:
  """How `heads.Projections` are judged.

  Attributes:
    rows: first patches of a block, at most; blocks are as even as can be. 0
      where the model makes dense scores, which need no answer.
    relation_smoothing, relation_dropout: as of `objectives.losses`.
  """

  rows: int
  relation_smoothing: float = 0.0
  relation_dropout: float = 0.0

  def __post_init__(self) -> None:
    if self.rows < 0:
      raise ValueError(f"rows={self.rows} of a block must be 0 or more")
    for name in ("relation_smoothing", "relation_dropout"):
      pair_tasks.check_share(name, getattr(self, name))

  @property
  def are_dense(self) -> bool:
    """Whether there are no blocks: `dense` of a model's call."""
    return self.rows == 0

  @jax.named_scope("losses")
  def answer(
    self,
    outputs: Mapping[str, Any],
    grid_size: Sequence[int],
    permutation: ArrayLike | None = None,
    key: Array | None = None,
  ) -> dict[str, Any]:
    """The outputs, with `Answered` for each of the `heads.Projections`.

    Args:
      outputs: what a model returned with dense=False.
      grid_size: (rows, columns) of patches.
      permutation: [B,N], the patch that image b shows at place i.
      key: a JAX random key, needed by relation_dropout.

    Raises:
      ValueError: the outputs belong to another grid or permutation, or the key
        is missing.
    """
    height, width = grid_size
    result = dict(outputs)
    for task, output in outputs.items():
      if not isinstance(output, heads.Projections):
        continue
      if self.are_dense:
        raise ValueError(
          f"rows=0 has no blocks for the queries and keys of {task}; rows must "
          "be at least 1, or the outputs of a call with dense=True"
        )
      batch, num_patches = output.query.shape[:2]
      pair_tasks.check_grid(
        f"the queries of {task}, of shape {output.query.shape},",
        (batch, num_patches, num_patches),
        (height, width),
        permutation,
      )
      options = (0.0, 0.0)
      if task == "relation":
        options = self.relation_smoothing, self.relation_dropout
      loss, kept, score = pair_pass.answer(
        pair_pass.Question(task, (height, width), self.rows, *options),
        output.query,
        output.key,
        jnp.asarray(pair_tasks.shown((height, width), permutation)),
        key if options[1] else None,
      )
      result[task] = Answered(loss, kept, score, *options)
    return result


DENSE = PairBlocks(0)


def rows_of(pair_block: int | None, num_patches: int) -> int:
  """Rows of a block, or 0 where the dense losses are to be taken.

  Args:
    pair_block: the key `loss.pair_block` of a config.
    num_patches: N, of the grid that the heads see.
  """
  if pair_block is not None:
    return pair_block
  return ROWS if num_patches >= BLOCKWISE_FROM else 0
