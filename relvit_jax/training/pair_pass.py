"""One pass over blocks of pairs of patches: losses and their gradients.

Scores of a block of first patches with all second ones are made, judged, turned
into gradients of queries and keys, and forgotten: no array has all pairs. An
image's loss is one number, so that its gradient can be made while the loss is:
the forward pass keeps two arrays, of the size of queries and keys, and the
backward pass scales them. That takes three products of matrices, as the dense
loss does. To keep queries and keys and make the scores again takes four, and
every target twice.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from relvit_jax.models import heads
from relvit_jax.training import pair_tasks


@dataclasses.dataclass(frozen=True)
class Question:
  """What is constant of a pass.

  Attributes:
    task: relation, distance or angle.
    grid_size: (rows, columns) of patches.
    rows: first patches of a block, at most; blocks are as even as can be.
    smoothing: share of a relation's target spread over all nine.
    dropout: chance of a pair to be left out of the loss.
  """

  task: str
  grid_size: tuple[int, int]
  rows: int
  smoothing: float
  dropout: float


_Values = tuple[Float[Array, " B"], Float[Array, " B"], Float[Array, " B"]]


def _answer(
  question: Question,
  query: Float[Array, "B N R d"],
  key: Float[Array, "B N R d"],
  shown: Int[Array, "C N 2"],
  dropout_key: Array | None,
) -> _Values:
  given = query, key, shown, dropout_key
  return _pass(question, *given, with_gradients=False)[0]


def _forward(question: Question, *given: Any) -> tuple[_Values, Any]:
  return _pass(question, *given, with_gradients=True)


def _backward(
  question: Question, gradients: tuple[Array, Array], cotangents: _Values
) -> tuple[Array, Array, None, None]:
  """Nobody learns from what is kept, nor from the score."""
  del question
  scale = cotangents[0][:, None, None, None]
  query, key = (
    (gradient * scale).astype(gradient.dtype) for gradient in gradients
  )
  return query, key, None, None


# (question, query, key, coordinates of the shown patches of each image or once
# for all, random key where there is dropout) → of each image: the loss of the
# pairs that are kept, over all N²; their share; and the mean of
# `pair_tasks.scores`. Only the loss has a gradient.
answer = jax.custom_vjp(_answer, nondiff_argnums=(0,))
answer.defvjp(_forward, _backward)


def _pass(
  question: Question,
  query: Float[Array, "B N R d"],
  key: Float[Array, "B N R d"],
  shown: Int[Array, "C N 2"],
  dropout_key: Array | None,
  *,
  with_gradients: bool,
) -> tuple[_Values, tuple[Array, Array] | None]:
  """What `_answer` returns, and the gradients of each image's loss.

  Those of keys are summed in float32; both come in the type of the input.
  """
  num_patches = query.shape[1]
  num_blocks = -(-num_patches // question.rows)
  rows = -(-num_patches // num_blocks)

  def block(gradients: Any, number: Array) -> tuple[Any, Any]:
    # The last block reaches back where blocks do not fill the grid; rows that
    # the one before it has counted are stale.
    start = jnp.minimum(number * rows, num_patches - rows)
    places = start + jnp.arange(rows)
    fresh = places >= number * rows
    part = functools.partial(
      jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=rows, axis=1
    )
    first, first_shown = part(query), part(shown)
    target = pair_tasks.targets(
      question.task, first_shown, question.grid_size, shown
    )
    kept = None
    if question.dropout:
      kept = pair_tasks.kept(
        dropout_key, question.dropout, len(query), places, num_patches
      )
    loss, backward, rest = jax.vjp(
      functools.partial(_judge, question, target, kept),
      heads.pair_scores(first, key),
      has_aux=True,
    )
    if with_gradients:
      by_query, by_key = gradients
      scale = first.shape[-1] ** -0.5 / num_patches
      (by_product,) = backward(jnp.full_like(loss, scale))
      own = _product("brij,bjrd->bird", by_product, key).astype(query.dtype)
      first = jnp.where(fresh[None, :, None, None], first, 0)
      gradients = (
        # A stale row is written again as it stands there.
        jax.lax.dynamic_update_slice_in_dim(by_query, own, start, axis=1),
        by_key + _product("brij,bird->bjrd", by_product, first),
      )
    values = [jnp.where(fresh[None], value, 0) for value in (loss, *rest)]
    return gradients, [jnp.sum(value, axis=1) for value in values]

  gradients = None
  if with_gradients:
    gradients = jnp.zeros_like(query), jnp.zeros(key.shape, jnp.float32)
  gradients, values = jax.lax.scan(block, gradients, jnp.arange(num_blocks))
  loss, kept, score = (jnp.sum(value, axis=0) / num_patches for value in values)
  if gradients is not None:
    gradients = gradients[0], gradients[1].astype(key.dtype)
  return (loss, kept, score), gradients


_Rows = Float[Array, "B n"]


def _judge(
  question: Question,
  target: Shaped[Array, "C n N"],
  kept: Bool[Array, "B n N"] | None,
  scores: Float[Array, "B R n N"],
) -> tuple[_Rows, tuple[_Rows, _Rows]]:
  """Means over each row: (loss, (share that is kept, score))."""
  output = scores if question.task == "relation" else scores[:, 0]
  losses = pair_tasks.losses(question.task, output, target, question.smoothing)
  score = jnp.mean(pair_tasks.scores(question.task, output, target), axis=-1)
  if kept is None:
    return jnp.mean(losses, axis=-1), (jnp.ones_like(score), score)
  share = jnp.mean(kept, axis=-1, dtype=jnp.float32)
  return jnp.mean(jnp.where(kept, losses, 0), axis=-1), (share, score)


def _product(form: str, left: Array, right: Array) -> Float[Array, "B N R d"]:
  return jnp.einsum(form, left, right, preferred_element_type=jnp.float32)
