"""One pass over blocks is the dense losses, without an array of all pairs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.extend import core

from relvit_jax import grid
from relvit_jax.analysis.residuals import saved_bytes
from relvit_jax.models import heads
from relvit_jax.training import pair_pass, pair_tasks, partitioning
from relvit_jax.training.pair_pass import Question

WIDTHS = {"relation": (9, 2), "distance": (1, 5), "angle": (1, 5)}


def projections(task, batch, num_patches, dtype=jnp.float32, seed=0):
  keys = jax.random.split(jax.random.key(seed), 2)
  shape = (batch, num_patches, *WIDTHS[task])
  return tuple(jax.random.normal(key, shape, dtype) for key in keys)


def orders(batch, num_patches, seed=0):
  random = np.random.default_rng(seed)
  return np.stack([random.permutation(num_patches) for _ in range(batch)])


def dense(question, query, key, shown, dropout_key):
  """What `answer` says, from all scores at once."""
  output = heads.pair_scores(query, key)
  output = output if question.task == "relation" else output[:, 0]
  target = pair_tasks.targets(question.task, shown, question.grid_size)
  losses = pair_tasks.losses(question.task, output, target, question.smoothing)
  kept = jnp.ones(losses.shape, bool)
  if question.dropout:
    batch, rows, _ = losses.shape
    kept = pair_tasks.kept(
      dropout_key, question.dropout, batch, np.arange(rows), rows
    )
  score = pair_tasks.scores(question.task, output, target)
  each = jnp.where(kept, losses, 0), kept, score
  return tuple(jnp.mean(values, axis=(1, 2)) for values in each)


def weighed(function):
  """Jitted: (the values, gradients of a sum in which images count 1, 2, …)."""

  def both(question, query, key, *rest):
    def total(query, key):
      values = function(question, query, key, *rest)
      return jnp.vdot(values[0], jnp.arange(1.0, len(query) + 1)), values

    return jax.grad(total, argnums=(0, 1), has_aux=True)(query, key)

  return jax.jit(both, static_argnums=0)


ANSWER, DENSE = weighed(pair_pass.answer), weighed(dense)


@settings(deadline=None, max_examples=4)
@given(
  task=st.sampled_from(sorted(WIDTHS)),
  size=st.sampled_from([(1, 1), (1, 7), (3, 4), (5, 5)]),
  rows=st.integers(1, 30),
  permuted=st.booleans(),
  smoothing=st.sampled_from([0.0, 0.2]),
  dropout=st.sampled_from([0.0, 0.3]),
  seed=st.integers(0, 2**31),
)
@example(
  task="relation",
  size=(5, 5),
  rows=4,
  permuted=True,
  smoothing=0.2,
  dropout=0.3,
  seed=0,
)
def test_losses_scores_and_gradients_are_the_dense_ones(
  task, size, rows, permuted, smoothing, dropout, seed
):
  num_patches = size[0] * size[1]
  order = orders(2, num_patches, seed) if permuted else None
  given = (
    Question(task, size, rows, smoothing, dropout),
    *projections(task, 2, num_patches, seed=seed),
    jnp.asarray(pair_tasks.shown(size, order)),
    jax.random.key(seed) if dropout else None,
  )
  for ours, theirs in zip(
    jax.tree.leaves(ANSWER(*given)), jax.tree.leaves(DENSE(*given)), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


# Of ten rows the last of four blocks has one that the third has not.
ROWS = 3
ORDER = [4, 0, 5, 9, 1, 3, 8, 2, 7, 6]


def answered(task):
  """(queries, keys, answer) of an image of 2×5 patches."""
  query, key = projections(task, 1, 10)
  values = pair_pass.answer(
    Question(task, (2, 5), ROWS, 0.0, 0.0),
    query,
    key,
    jnp.asarray(pair_tasks.shown((2, 5), np.array([ORDER]))),
    None,
  )
  return np.asarray(query[0]), np.asarray(key[0]), values


def test_distances_pair_by_pair():
  query, key, values = answered("distance")
  loss = error = 0.0
  for i in range(10):
    for j in range(10):
      score = query[i, 0] @ key[j, 0] / math.sqrt(5)
      away = np.subtract(divmod(ORDER[i], 5), divmod(ORDER[j], 5))
      target = 2 * np.hypot(*away) / np.hypot(1, 4) - 1
      loss += (score - target) ** 2 / 100
      error += abs(score - target) / 100
  np.testing.assert_allclose(values, [[loss], [1], [error]], rtol=1e-5)


def test_relations_pair_by_pair():
  query, key, values = answered("relation")
  loss = hits = 0.0
  for i in range(10):
    for j in range(10):
      scores = [query[i, r] @ key[j, r] / math.sqrt(2) for r in range(9)]
      right = grid.relations(2, 5)[ORDER[i], ORDER[j]]
      loss += (np.log(np.exp(scores).sum()) - scores[right]) / 100
      hits += (np.argmax(scores) == right) / 100
  np.testing.assert_allclose(values, [[loss], [1], [hits]], rtol=1e-5)


@pytest.mark.parametrize("task", sorted(WIDTHS))
def test_bfloat16_gradients_are_summed_in_float32(task):
  given = (
    jnp.asarray(pair_tasks.shown((4, 5), orders(2, 20))),
    None,
  )
  question = Question(task, (4, 5), 3, 0.0, 0.0)
  half = projections(task, 2, 20, jnp.bfloat16)
  gradients, values = ANSWER(question, *half, *given)
  assert {leaf.dtype.name for leaf in values} == {"float32"}
  assert {leaf.dtype.name for leaf in gradients} == {"bfloat16"}
  exact, expected = DENSE(
    question, *(array.astype(jnp.float32) for array in half), *given
  )
  # What goes in is exact in float32, and so is to count an image once or twice:
  # what comes out is rounded at the end alone.
  for ours, theirs in zip(values, expected, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
  for ours, theirs in zip(gradients, exact, strict=True):
    np.testing.assert_allclose(
      ours.astype(jnp.float32), theirs, rtol=2**-8, atol=1e-6
    )


SIDE = 32
LARGE = SIDE**2
WIDE = jax.ShapeDtypeStruct((1, LARGE, 9, 2), jnp.float32)
PLACES = jax.ShapeDtypeStruct((1, LARGE, 2), jnp.int32)
KEY = jax.eval_shape(lambda: jax.random.key(0))


def training(function, task="relation"):
  """(loss, its gradients) of 32×32 patches, as a function of arrays."""
  question = Question(task, (SIDE, SIDE), 8, 0.1, 0.1 * (task == "relation"))

  def loss(query, key, shown, dropout_key):
    values = function(question, query, key, shown, dropout_key)
    return jnp.sum(values[0]), values[1:]

  return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)


def largest(program):
  """Entries of the largest array that a jaxpr makes, inner ones included."""
  sizes = [0]
  for equation in program.eqns:
    sizes += [math.prod(out.aval.shape) for out in equation.outvars]
    for value in jax.tree.leaves(
      list(equation.params.values()),
      is_leaf=lambda leaf: isinstance(leaf, (core.ClosedJaxpr, core.Jaxpr)),
    ):
      if isinstance(value, core.ClosedJaxpr):
        value = value.jaxpr
      if isinstance(value, core.Jaxpr):
        sizes.append(largest(value))
  return max(sizes)


@pytest.mark.parametrize("task", sorted(WIDTHS))
def test_no_array_has_all_pairs_forward_or_backward(task):
  wide = jax.ShapeDtypeStruct((1, LARGE, *WIDTHS[task]), jnp.float32)
  made, all_pairs = (
    largest(
      jax.make_jaxpr(training(function, task))(wide, wide, PLACES, KEY).jaxpr
    )
    for function in (pair_pass.answer, dense)
  )
  assert made <= 9 * 8 * LARGE < LARGE**2 <= all_pairs


def test_the_compiled_program_has_no_room_for_all_pairs():
  program = jax.jit(training(pair_pass.answer)).lower(WIDE, WIDE, PLACES, KEY)
  room = program.compile().memory_analysis().temp_size_in_bytes
  assert 0 < room < 4 * LARGE**2 / 2


def test_the_backward_pass_keeps_two_arrays_as_large_as_queries_and_keys():
  def loss(weights, tokens, shown, key):
    question = Question("relation", (SIDE, SIDE), 8, 0.1, 0.1)
    projected = [
      (tokens @ weight).reshape(1, LARGE, 9, 2) for weight in weights
    ]
    return jnp.sum(pair_pass.answer(question, *projected, shown, key)[0])

  weight = jax.ShapeDtypeStruct((7, 18), jnp.float32)
  tokens = jax.ShapeDtypeStruct((1, LARGE, 7), jnp.float32)
  kept = saved_bytes(loss, [weight, weight], tokens, PLACES, KEY)
  assert kept == 2 * math.prod(WIDE.shape) * 4


def test_devices_share_the_images_and_exchange_nothing():
  sharding = partitioning.batch_sharding(partitioning.make_mesh())
  question = Question("relation", (4, 5), 6, 0.1, 0.2)
  given = (
    *projections("relation", 16, 20),
    jnp.asarray(pair_tasks.shown((4, 5), orders(16, 20))),
  )
  key = jax.random.key(7)
  placed = jax.device_put(given, sharding)
  program = ANSWER.lower(question, *placed, key).compile()
  text = program.as_text()
  for exchange in ("all-", "collective-permute", "reduce-scatter"):
    assert exchange not in text
  assert "f32[2,9,5,20]" in text  # Two images a device; 20 rows in 4 blocks.
  assert "[16,9,5,20]" not in text
  for eight, one in zip(
    jax.tree.leaves(program(*placed, key)),
    jax.tree.leaves(ANSWER(question, *given, key)),
    strict=True,
  ):
    np.testing.assert_allclose(eight, one, rtol=1e-6, atol=1e-7)


def test_many_batches_at_once():
  question = Question("angle", (2, 3), 4, 0.0, 0.0)
  shown = jnp.asarray(pair_tasks.shown((2, 3), None))
  query, key = (
    jnp.stack(pair)
    for pair in zip(
      *(projections("angle", 2, 6, seed=i) for i in range(3)), strict=True
    )
  )

  def loss(query, key):
    return jnp.sum(pair_pass.answer(question, query, key, shown, None)[0])

  together = jax.vmap(jax.grad(loss))(query, key)
  for i in range(3):
    np.testing.assert_allclose(
      together[i], jax.grad(loss)(query[i], key[i]), rtol=1e-5, atol=1e-7
    )
