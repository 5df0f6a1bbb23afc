"""The paper's figure: how alike the embeddings of two places are."""

import numpy as np
import pytest

from relvit_jax.analysis import similarity


def test_similarity_is_the_cosine_and_leaves_the_class_token_out():
  # Class token, then a 1×3 grid: along x, along the diagonal, against x.
  embeddings = np.array([[[7.0, 7], [2, 0], [1, 1], [-3, 0]]])
  half = np.sqrt(0.5)
  np.testing.assert_allclose(
    similarity.position_similarity(embeddings, (1, 3))[0, :, 0],
    [[1, half, -1], [half, 1, -half], [-1, -half, 1]],
    atol=1e-12,
  )


def test_without_a_class_token_all_embeddings_are_places():
  embeddings = np.random.default_rng(0).normal(size=(1, 6, 4))
  with_token = np.concatenate([np.ones((1, 1, 4)), embeddings], axis=1)
  np.testing.assert_array_equal(
    similarity.position_similarity(embeddings, (2, 3)),
    similarity.position_similarity(with_token, (2, 3)),
  )


def test_similarity_equals_the_official_one(reference):
  archive = reference("posembed_similarity")
  np.testing.assert_allclose(
    similarity.position_similarity(archive["pos_embed"], (8, 8)),
    archive["similarity"],
    atol=1e-6,
  )


def test_embeddings_of_another_grid_are_refused():
  with pytest.raises(ValueError, match="8 tokens; a 2×3 grid has 6, or one"):
    similarity.position_similarity(np.ones((1, 8, 4)), (2, 3))
