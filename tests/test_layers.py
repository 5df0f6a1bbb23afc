"""The parts of a transformer, by their properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from relvit_jax.models import layers


def block(**options):
  return layers.Block(12, 3, 2.0, rngs=nnx.Rngs(0), **options)


def tokens(batch=2, length=5, dim=12):
  return jax.random.normal(jax.random.key(1), (batch, length, dim))


def test_attention_weights_are_shares():
  attention = layers.Attention(12, 3, rngs=nnx.Rngs(0))
  weights = attention.weights(tokens())
  assert weights.shape == (2, 3, 5, 5)
  np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)


def test_attention_of_equal_tokens_is_even():
  attention = layers.Attention(12, 3, rngs=nnx.Rngs(0))
  weights = attention.weights(jnp.ones((1, 4, 12)))
  np.testing.assert_allclose(weights, 0.25, atol=1e-6)


def test_masks_say_who_may_attend_to_whom():
  table = layers.attention_mask("diagonal", 3)
  assert table.tolist() == [
    [True, False, False],
    [False, True, False],
    [False, False, True],
  ]
  table = layers.attention_mask("diagonal_cls_row", 3)
  assert table.tolist() == [
    [True, True, True],
    [False, True, False],
    [False, False, True],
  ]


def test_masked_attention_returns_the_values_themselves():
  """And has gradients, though what is masked is infinitely unlikely."""
  attention = layers.Attention(12, 3, mask="diagonal", rngs=nnx.Rngs(0))
  x = tokens()
  value = attention.qkv(x)[..., 24:]
  np.testing.assert_allclose(attention(x), attention.proj(value), atol=1e-6)
  gradient = jax.grad(lambda x: attention(x).sum())(x)
  assert np.isfinite(gradient).all()
  assert (np.abs(gradient).max(axis=-1) > 0).all()


def test_a_block_treats_tokens_alike_in_any_order():
  order = np.array([3, 0, 4, 1, 2])
  x = tokens()
  np.testing.assert_allclose(
    block()(x[:, order]), block()(x)[:, order], atol=1e-6
  )


def test_mlp_uses_the_exact_gelu():
  mlp = layers.Mlp(1, 1, rngs=nnx.Rngs(0))
  for linear in (mlp.fc1, mlp.fc2):
    linear.kernel.set_value(jnp.ones((1, 1)))
  # x Φ(x) at 1; the tanh approximation gives 0.841192.
  np.testing.assert_allclose(mlp(jnp.ones((1, 1, 1))), [[[0.8413447]]], 1e-6)


def test_drop_path_skips_whole_images_and_rescales_the_others():
  x = tokens(batch=64)
  plain, dropping = block(), block(drop_path_rate=0.5)
  np.testing.assert_array_equal(dropping(x), plain(x))  # Not while testing.
  dropping.mlp.fc2.kernel.set_value(jnp.zeros((24, 12)))  # Attention alone.
  branch = plain.attn(plain.norm1(x))
  y = dropping(x, train=True, rngs=nnx.Rngs(dropout=0))
  kept = np.abs(np.asarray(y - x)).max(axis=(1, 2)) > 0
  assert 0 < kept.sum() < 64
  np.testing.assert_allclose(
    (y - x)[kept], 2 * np.asarray(branch)[kept], atol=1e-5
  )


@pytest.mark.parametrize("rate", ["dropout_rate", "attention_dropout_rate"])
def test_dropout_acts_while_training_and_only_then(rate):
  x, dropping = tokens(), block(**{rate: 0.5})
  np.testing.assert_array_equal(dropping(x), block()(x))
  first = dropping(x, train=True, rngs=nnx.Rngs(dropout=1))
  assert not np.allclose(first, dropping(x))
  again = dropping(x, train=True, rngs=nnx.Rngs(dropout=1))
  np.testing.assert_array_equal(first, again)


def test_training_without_a_random_stream_is_refused():
  with pytest.raises(ValueError, match="rngs"):
    block(dropout_rate=0.5)(tokens(), train=True)


def test_patch_embed_is_one_linear_map_of_each_patch():
  embed = layers.PatchEmbed(2, 12, rngs=nnx.Rngs(0))
  image = np.arange(4 * 4 * 3, dtype=np.float32).reshape(1, 4, 4, 3)
  pixels = image[0, 2:, :2].reshape(-1)
  np.testing.assert_allclose(
    embed(jnp.asarray(image))[0, 2],
    pixels @ np.asarray(embed.proj.kernel) + np.asarray(embed.proj.bias),
    rtol=1e-5,
  )


def test_heads_start_within_pytorchs_bounds():
  linear = layers.torch_linear(100, 50, dtype=None, rngs=nnx.Rngs(0))
  for param in jax.tree.leaves(nnx.state(linear)):
    values = np.abs(np.asarray(param))
    assert 0.09 < values.max() <= 0.1  # 1 / √100.


def test_bfloat16_computes_in_it_and_keeps_float32_parameters():
  small = block(dtype=jnp.bfloat16)
  assert small(tokens().astype(jnp.bfloat16)).dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(small))} == {
    jnp.dtype("float32")
  }


def test_heads_that_do_not_divide_the_width_are_refused():
  with pytest.raises(ValueError, match=r"num_heads=5 must divide .*=12"):
    layers.Attention(12, 5, rngs=nnx.Rngs(0))
