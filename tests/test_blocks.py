"""The transformer block, by its properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from relvit_jax.models import blocks, layers, norms


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


def stacked(kernels, scan):
  """Loss and gradients of three blocks of which some branches are dropped."""
  stack = [block(seed, kernels=kernels) for seed in range(3)]
  paths = [None, jnp.array([[0.0, 2.0], [2.0, 2.0]]), jnp.array([[2.0, 0]] * 2)]
  graphdef, state = nnx.split(nnx.List(stack))

  def loss(state, x):
    made = list(nnx.merge(graphdef, state))
    stream = blocks.run(made, x, paths, scan=scan, train=True)
    normalised = stream.normalised
    if normalised is None:
      rows = norms.normalised(layers.rows(stream.x), 1e-6, jnp.float32)
      normalised = rows.reshape(x.shape)
    return jnp.sum(jnp.sin(stream.x) + jnp.cos(normalised)), stream.x

  return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
    state, tokens()
  )


@pytest.mark.parametrize("scan", [False, True])
def test_kernels_change_no_number(scan):
  """Nor a gradient: of the tokens, and of each weight."""
  for ours, theirs in zip(
    jax.tree.leaves(stacked(True, scan)),
    jax.tree.leaves(stacked(False, scan)),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


def test_kernels_hand_on_what_the_next_norm_reads():
  x, module = tokens(), block(kernels=True)
  stream = module.through(blocks.Stream(x))
  rows = norms.normalised(layers.rows(stream.x), 1e-6, jnp.float32)
  np.testing.assert_allclose(
    stream.normalised, rows.reshape(x.shape), atol=1e-5
  )
  np.testing.assert_allclose(module(x), stream.x, atol=1e-6)
  np.testing.assert_allclose(block()(x), stream.x, atol=1e-5)


def test_where_dropout_acts_no_kernel_adds_a_branch():
  both = [block(dropout_rate=0.5, kernels=kernels) for kernels in (False, True)]
  plain, ours = (
    one(tokens(), train=True, rngs=nnx.Rngs(dropout=1)) for one in both
  )
  np.testing.assert_allclose(ours, plain, atol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_scanned_blocks_are_the_same_blocks(rate):
  """Dropout included: a block draws from a key of its own in both."""
  stack = [block(seed, dropout_rate=rate) for seed in range(3)]
  paths = [None, jnp.array([[0.0, 2.0], [2.0, 2.0]]), None]

  def run(x, scan):
    rngs = nnx.Rngs(dropout=5)
    return blocks.run(stack, x, paths, scan=scan, train=True, rngs=rngs).x

  x = tokens()
  plain, scanned = (
    jax.jit(run, static_argnums=1)(x, scan) for scan in (False, True)
  )
  np.testing.assert_allclose(scanned, plain, atol=1e-5)
  assert not np.allclose(plain, x, atol=1e-3)
