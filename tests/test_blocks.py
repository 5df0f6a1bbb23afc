"""The transformer block, by its properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from relvit_jax.models import blocks


def block(seed=0, **options):
  return blocks.Block(12, 3, 2.0, rngs=nnx.Rngs(seed), **options)


def tokens(batch=2, length=5, dim=12):
  return jax.random.normal(jax.random.key(1), (batch, length, dim))


def test_a_block_treats_tokens_alike_in_any_order():
  order = np.array([3, 0, 4, 1, 2])
  x = tokens()
  np.testing.assert_allclose(
    block()(x[:, order]), block()(x)[:, order], atol=1e-6
  )


def test_a_path_multiplies_what_a_branch_adds_to_an_image():
  x, module = tokens(batch=3), block()
  paths = jnp.array([[0.0, 1.0, 2.0], [1.0, 0.0, 0.5]])
  attended = module.attn(module.norm1(x))
  middle = x + paths[0][:, None, None] * attended
  wanted = middle + paths[1][:, None, None] * module.mlp(module.norm2(middle))
  np.testing.assert_allclose(module(x, paths=paths), wanted, atol=1e-6)
  np.testing.assert_allclose(
    module(x, paths=jnp.ones((2, 3))), module(x), atol=1e-6
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


def test_bfloat16_computes_in_it_and_keeps_float32_parameters():
  small = block(dtype=jnp.bfloat16)
  assert small(tokens().astype(jnp.bfloat16)).dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(small))} == {
    jnp.dtype("float32")
  }


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_scanned_blocks_are_the_same_blocks(rate):
  """Dropout included: a block draws from a key of its own in both."""
  stack = [block(seed, dropout_rate=rate) for seed in range(3)]
  paths = [None, jnp.array([[0.0, 2.0], [2.0, 2.0]]), None]

  def run(x, scan):
    rngs = nnx.Rngs(dropout=5)
    return blocks.run(stack, x, paths, scan=scan, train=True, rngs=rngs)

  x = tokens()
  plain, scanned = (
    jax.jit(run, static_argnums=1)(x, scan) for scan in (False, True)
  )
  np.testing.assert_allclose(scanned, plain, atol=1e-5)
  assert not np.allclose(plain, x, atol=1e-3)
