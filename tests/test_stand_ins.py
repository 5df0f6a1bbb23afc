"""What stands for a backbone, and for a feed."""

import types

import jax.numpy as jnp
import numpy as np

from relvit_jax.analysis import stand_ins
from relvit_jax.data import feed as feeds
from relvit_jax.data import splits
from relvit_jax.models import layers
from relvit_jax.training import partitioning


def test_given_tokens_stand_for_a_backbone():
  tokens = layers.Tokens(jnp.ones((2, 4, 3)), None, jnp.zeros((2, 4, 3)))
  backbone = types.SimpleNamespace(
    embed_dim=3, grid_size=(2, 2), features=lambda tokens: tokens.patches[:, 0]
  )
  made = stand_ins.Given(backbone, tokens)
  assert (made.embed_dim, made.grid_size) == (3, (2, 2))
  assert made(jnp.zeros((2, 8, 8, 3)), train=True) is tokens
  np.testing.assert_array_equal(made.features(tokens), np.ones((2, 3)))


def test_the_same_batch_comes_in_every_step():
  mesh = partitioning.make_mesh()
  split = splits.Split(
    "two", np.zeros((2, 1, 1, 3), np.uint8), np.zeros(2, np.int32), ("a",)
  )
  feed = stand_ins.Same(feeds.Resident(split, 8, 3, mesh), mesh)
  assert (feed.batch_size, feed.max_steps) == (8, 3)
  batch = {"image": jnp.ones((8, 1, 1, 3))}
  draw = feed.batches(jnp.zeros(2, jnp.uint32), batch, jnp.int32(5))
  assert draw(jnp.int32(0)) is batch
  assert draw(jnp.int32(2)) is batch
