"""The transformer block, by its properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from relvit_jax.analysis import residuals
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


def test_mlp_uses_the_exact_gelu():
  mlp = blocks.Mlp(1, 1, rngs=nnx.Rngs(0))
  for linear in (mlp.fc1, mlp.fc2):
    linear.kernel.set_value(jnp.ones((1, 1)))
  # x Φ(x) at 1; the tanh approximation gives 0.841192.
  np.testing.assert_allclose(mlp(jnp.ones((1, 1, 1))), [[[0.8413447]]], 1e-6)


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


def mlp_loss(params, x, *, graphdef):
  module = nnx.merge(graphdef, nnx.State(params))
  return (module(x) * jnp.sin(jnp.arange(8))[None, None]).sum()


def mlps(**options):
  """(losses, weights) without and with recomputing."""
  for recompute in (False, True):
    module = blocks.Mlp(
      8, 24, recompute_gelu=recompute, rngs=nnx.Rngs(0), **options
    )
    graphdef, state = nnx.split(module)
    yield (
      lambda params, x, graphdef=graphdef: mlp_loss(
        params, x, graphdef=graphdef
      ),
      nnx.to_pure_dict(state),
    )


def test_recomputing_gelu_changes_no_gradient():
  x = 2 * tokens(dim=8)
  plain, again = (
    jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, x)
    for loss, params in mlps()
  )
  for ours, theirs in zip(
    jax.tree.leaves(again), jax.tree.leaves(plain), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_recomputing_gelu_keeps_its_input_alone():
  """Of the layer between, 24 wide, in float32; and x, for the first layer."""
  x = tokens(dim=8)
  plain, again = (
    residuals.saved_bytes(loss, params, x) for loss, params in mlps()
  )
  assert again == 2 * 5 * (24 + 8) * 4
  assert plain >= again + 2 * 5 * 24 * 4


def test_recomputing_gelu_leaves_dropout_alone():
  x = tokens(dim=8)
  outputs = []
  for recompute in (False, True):
    module = blocks.Mlp(
      8, 24, recompute_gelu=recompute, dropout_rate=0.5, rngs=nnx.Rngs(0)
    )
    outputs.append(module(x, train=True, rngs=nnx.Rngs(dropout=1)))
  np.testing.assert_array_equal(*outputs)


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
