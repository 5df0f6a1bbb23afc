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
