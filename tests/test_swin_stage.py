"""The parts of a stage: merging, shifting, paths."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from relvit_jax.models import swin_stage


def stage(depth=3, *, shifts=True, merges=True):
  return swin_stage.Stage(
    6, 2, (4, 4), 2, depth, shifts=shifts, merges=merges, rngs=nnx.Rngs(0)
  )


def tokens(batch=2):
  return jax.random.normal(jax.random.key(1), (batch, 16, 6))


def test_which_tokens_merge_in_which_order():
  """Of a 2×4 grid, numbered in reading order."""
  numbers = jnp.arange(8).reshape(1, 8, 1)
  np.testing.assert_array_equal(
    swin_stage.fours(numbers, (2, 4)), [[[0, 4, 1, 5], [2, 6, 3, 7]]]
  )


def test_merging_halves_the_grid_and_doubles_the_width():
  merging = swin_stage.PatchMerging(6, (4, 4), dtype=None, rngs=nnx.Rngs(0))
  assert merging(tokens()).shape == (2, 4, 12)
  assert merging.reduction.bias is None


def test_every_second_block_shifts_its_windows_by_half():
  assert [block.attn.shift for block in stage().blocks] == [0, 1, 0]
  still = stage(shifts=False)
  assert [block.attn.shift for block in still.blocks] == [0, 0, 0]


def test_only_a_stage_that_merges_changes_the_shape():
  assert stage()(tokens()).shape == (2, 4, 12)
  last = stage(merges=False)
  assert last(tokens()).shape == (2, 16, 6)
  assert last.downsample is None


def test_a_block_is_attention_and_mlp_each_added_to_its_input():
  block, x = stage().blocks[1], tokens()
  after = x + block.attn(block.norm1(x))
  np.testing.assert_allclose(
    block(x), after + block.mlp(block.norm2(after)), atol=1e-6
  )


def test_every_block_has_paths_of_its_own():
  two, x = stage(2, merges=False), tokens()
  first, second = two.blocks
  paths = [None, jnp.array([[0.0, 2.0], [2.0, 0.0]])]
  np.testing.assert_allclose(
    two(x, paths=paths), second(first(x), paths=paths[1]), atol=1e-6
  )
  assert not np.allclose(two(x, paths=paths), two(x), atol=1e-3)


def test_patches_are_normalised_where_they_are_embedded():
  embed = swin_stage.PatchEmbed(4, 12, rngs=nnx.Rngs(0))
  embedded = embed(jax.random.normal(jax.random.key(0), (2, 8, 12, 3)))
  assert embedded.shape == (2, 6, 12)
  np.testing.assert_allclose(embedded.mean(axis=-1), 0, atol=1e-5)
  np.testing.assert_allclose(embedded.std(axis=-1), 1, atol=1e-3)


def test_the_norms_have_the_epsilon_of_swin():
  block = stage().blocks[0]
  assert block.norm1.epsilon == block.norm2.epsilon == 1e-5
