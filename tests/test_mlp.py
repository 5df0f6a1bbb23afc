"""The MLP of a block, by its properties."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from relvit_jax.analysis import residuals
from relvit_jax.models import mlp


def tokens(batch=2, length=5, dim=8):
  return jax.random.normal(jax.random.key(1), (batch, length, dim))


def test_mlp_uses_the_exact_gelu():
  module = mlp.Mlp(1, 1, rngs=nnx.Rngs(0))
  for linear in (module.fc1, module.fc2):
    linear.kernel.set_value(jnp.ones((1, 1)))
  # x Φ(x) at 1; the tanh approximation gives 0.841192.
  np.testing.assert_allclose(module(jnp.ones((1, 1, 1))), [[[0.8413447]]], 1e-6)


def mlp_loss(params, x, *, graphdef):
  module = nnx.merge(graphdef, nnx.State(params))
  return (module(x) * jnp.sin(jnp.arange(8))[None, None]).sum()


def mlps(**options):
  """(losses, weights) without and with recomputing."""
  for recompute in (False, True):
    module = mlp.Mlp(
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
  x = 2 * tokens()
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
  x = tokens()
  plain, again = (
    residuals.saved_bytes(loss, params, x) for loss, params in mlps()
  )
  assert again == 2 * 5 * (24 + 8) * 4
  assert plain >= again + 2 * 5 * 24 * 4


def test_a_kernel_for_gelu_changes_no_number():
  plain, ours = (
    mlp.Mlp(8, 24, kernels=kernels, rngs=nnx.Rngs(0))
    for kernels in (False, True)
  )
  np.testing.assert_allclose(ours(tokens()), plain(tokens()), atol=1e-6)


def test_recomputing_gelu_leaves_dropout_alone():
  x = tokens()
  outputs = []
  for recompute in (False, True):
    module = mlp.Mlp(
      8, 24, recompute_gelu=recompute, dropout_rate=0.5, rngs=nnx.Rngs(0)
    )
    outputs.append(module(x, train=True, rngs=nnx.Rngs(dropout=1)))
  np.testing.assert_array_equal(*outputs)
