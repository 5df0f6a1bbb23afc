"""A LayerNorm and the linear layer after it, as one product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from relvit_jax.models import layers, norms


def made(use_bias=True, dtype=None, dim=6, width=5):
  """(norm, linear), of which no number is what it begins with."""
  norm = layers.layer_norm(dim, dtype=dtype, rngs=nnx.Rngs(0))
  linear = layers.linear(
    dim, width, use_bias=use_bias, dtype=dtype, rngs=nnx.Rngs(1)
  )
  norm.scale[...] = 1 + jax.random.normal(jax.random.key(2), (dim,)) / 4
  norm.bias[...] = jax.random.normal(jax.random.key(3), (dim,))
  if use_bias:
    linear.bias[...] = jnp.arange(float(width))
  return norm, linear


def in_numpy(module):
  graphdef, state = nnx.split(module)
  return nnx.merge(graphdef, jax.tree.map(np.asarray, state))


def tokens(count=4, dim=6):
  return 3 + 2 * jax.random.normal(jax.random.key(4), (count, dim))


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("has_norm", [True, False])
def test_the_bias_is_left_to_be_added(use_bias, is_read, has_norm):
  """Also to weights that were read from a file."""
  norm, linear = made(use_bias)
  wanted = linear(norm(tokens()) if has_norm else tokens())
  if is_read:
    norm, linear = in_numpy(norm), in_numpy(linear)
  product, bias = norms.unbiased(linear, tokens(), norm if has_norm else None)
  np.testing.assert_allclose(product + bias[None], wanted, atol=1e-6)
  if not has_norm:
    np.testing.assert_array_equal(bias, np.arange(5.0) * use_bias)


def test_what_is_normalised_already_gets_scale_and_bias_alone():
  norm, linear = made()
  x = norms.normalised(tokens(), norm.epsilon, jnp.float32)
  product, bias = norms.unbiased(linear, x, norm, is_normalised=True)
  wanted = linear(norm(tokens()))
  np.testing.assert_allclose(product + bias[None], wanted, atol=2e-6)


@pytest.mark.parametrize("shape", [(4, 6), (2, 2, 6)])
def test_scale_and_bias_of_normalised_rows_make_the_norm(shape):
  norm, _ = made()
  x = norms.normalised(tokens(), norm.epsilon, jnp.float32)
  ours = norms.scaled(norm, x.reshape(shape))
  np.testing.assert_allclose(
    ours, norm(tokens()).reshape(shape), rtol=1e-6, atol=1e-6
  )


@pytest.mark.parametrize("has_norm", [True, False])
def test_it_computes_in_the_type_of_the_layer(has_norm):
  norm, linear = made(dtype=jnp.bfloat16)
  product, bias = norms.unbiased(linear, tokens(), norm if has_norm else None)
  assert (product.dtype, bias.dtype) == (jnp.bfloat16, jnp.bfloat16)


def test_gradients_are_those_of_the_two_layers():
  """Of the tokens, and of each weight of both."""
  modules = nnx.Dict(zip(("norm", "linear"), made(), strict=True))
  graphdef, state = nnx.split(modules)
  weights = jnp.sin(jnp.arange(20.0)).reshape(4, 5)

  def one_product(state, x):
    given = nnx.merge(graphdef, state)
    product, bias = norms.unbiased(given["linear"], x, given["norm"])
    return ((product + bias[None]) * weights).sum()

  def one_by_one(state, x):
    given = nnx.merge(graphdef, state)
    return (given["linear"](given["norm"](x)) * weights).sum()

  found, wanted = (
    jax.grad(loss, argnums=(0, 1))(state, tokens())
    for loss in (one_product, one_by_one)
  )
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other, atol=3e-6),
    found,
    wanted,
  )


def test_normalised_rows_have_mean_0_and_variance_1():
  rows = norms.normalised(tokens(dim=64), 0.0, jnp.float32)
  np.testing.assert_allclose(rows.mean(axis=1), 0, atol=1e-6)
  np.testing.assert_allclose(rows.var(axis=1), 1, atol=1e-5)


def test_rows_of_one_number_become_0():
  """Their variance, as it is computed, may come out below 0."""
  rows = jnp.full((2, 6), 1000.1)
  found = norms.normalised(rows, layers.LAYER_NORM_EPSILON, jnp.float32)
  np.testing.assert_allclose(found, 0, atol=0.2)
  gradient = jax.grad(lambda x: norms.normalised(x, 1e-6, x.dtype).sum())(rows)
  assert np.isfinite(gradient).all()


def test_the_backward_pass_keeps_what_the_product_does():
  """Rows of the result and a factor each, not x."""

  def backward(x):
    return jax.vjp(lambda x: norms.normalised(x, 1e-6, jnp.bfloat16), x)[1]

  x = jax.ShapeDtypeStruct((4, 6), jnp.bfloat16)
  kept = jax.make_jaxpr(backward)(x).out_avals
  assert sorted((leaf.shape, leaf.dtype.name) for leaf in kept) == [
    ((4, 1), "float32"),
    ((4, 6), "bfloat16"),
  ]


@pytest.mark.parametrize(
  ("platform", "is_taken_over"), [("cpu", True), ("cuda", True), ("tpu", False)]
)
def test_on_a_tpu_the_norm_keeps_its_scale(platform, is_taken_over):
  """Elsewhere the weights, 6×5, are multiplied with it."""
  norm, linear = made()
  step = jax.jit(lambda x: norms.unbiased(linear, x, norm))
  text = step.trace(tokens()).lower(lowering_platforms=(platform,)).as_text()
  lines = [line for line in text.splitlines() if "stablehlo.multiply" in line]
  assert any("tensor<6x5xf32>" in line for line in lines) == is_taken_over
