"""Heads: the pair scores are products of one patch's query, another's key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from relvit_jax.models import heads


def test_scores_are_scaled_products_of_query_and_key():
  head = heads.PairwiseHead(18, 9, rngs=nnx.Rngs(0))
  tokens = jax.random.normal(jax.random.key(0), (2, 4, 18))
  scores = head(tokens)
  assert scores.shape == (2, 9, 4, 4)
  # Relation 5 owns columns 10 and 11; row is the query's patch.
  query = tokens[1, 3] @ head.query.kernel[...][:, 10:12]
  key = tokens[1, 0] @ head.key.kernel[...][:, 10:12]
  np.testing.assert_allclose(
    scores[1, 5, 3, 0], query @ key / np.sqrt(2), rtol=1e-4
  )


def test_scores_of_some_rows_follow_from_projections():
  head = heads.PairwiseHead(20, 9, rngs=nnx.Rngs(0))
  tokens = jax.random.normal(jax.random.key(0), (2, 4, 20))
  query, key = head.project(tokens)
  assert query.shape == key.shape == (2, 4, 9, 2)
  rows = heads.pair_scores(query[:, 1:3], key)
  np.testing.assert_allclose(rows, head(tokens)[:, :, 1:3], rtol=1e-6)


def test_nine_relations_share_the_width_as_far_as_it_divides():
  head = heads.PairwiseHead(384, 9, rngs=nnx.Rngs(0))
  assert head.query.kernel[...].shape == (384, 9 * 42)
  assert head.query.bias is None


def test_scores_are_float32_also_from_bfloat16():
  head = heads.PairwiseHead(18, 9, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
  assert head(jnp.ones((1, 4, 18), jnp.bfloat16)).dtype == jnp.float32


def test_too_few_dimensions_for_nine_relations_are_refused():
  with pytest.raises(ValueError, match="embed_dim=8 is too narrow for 9"):
    heads.PairwiseHead(8, 9, rngs=nnx.Rngs(0))


def localiser(mode="l1", size=(2, 3), **options):
  return heads.DenseRelativeLocalisation(
    4, size, mode, hidden_dim=8, rngs=nnx.Rngs(0), **options
  )


def test_localisation_reads_the_two_tokens_of_a_pair_in_order():
  head = localiser()
  tokens = jax.random.normal(jax.random.key(0), (2, 6, 4))
  first = jnp.array([[[0, 0], [1, 2]], [[1, 0], [0, 1]]])
  second = jnp.array([[[0, 2], [0, 0]], [[1, 1], [0, 1]]])
  predicted = head(tokens, first, second)
  assert predicted.shape == (4, 2)
  # Pair 1 of image 0: patch 5, at (1, 2), then patch 0.
  x = jnp.concatenate([tokens[0, 5], tokens[0, 0]])
  for layer in head.layers[:2]:
    x = jax.nn.relu(layer(x))
  np.testing.assert_allclose(predicted[1], head.layers[2](x), rtol=1e-4)


def test_localisation_scores_the_differences_of_the_longer_side():
  pair = jnp.zeros((2, 5, 2), jnp.int32)
  for options, classes in (({}, 3), ({"use_abs": False}, 5)):
    head = localiser("ce", **options)
    scores = head(jnp.ones((2, 6, 4), jnp.bfloat16), pair, pair)
    assert scores.shape == (10, classes, 2)
    assert scores.dtype == jnp.float32


def test_localisation_refuses_a_mode_and_tokens_it_was_not_made_for():
  with pytest.raises(ValueError, match="mode='mse' does not exist; there are"):
    localiser("mse")
  pair = jnp.zeros((1, 1, 2), jnp.int32)
  with pytest.raises(ValueError, match=r"\(2, 3\), which has 6 patches"):
    localiser()(jnp.ones((1, 4, 4)), pair, pair)
