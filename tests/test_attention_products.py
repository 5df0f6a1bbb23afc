"""Attention by products, its backward pass among them, against a softmax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax.models import attention_products


def defined(qkv, length, num_heads):
  """softmax(q kᵀ / √d) v, as it is written."""
  batch, dim = len(qkv) // length, qkv.shape[1] // 3
  shape = (batch, length, 3, num_heads, dim // num_heads)
  query, key, value = qkv.reshape(shape).transpose(2, 0, 3, 1, 4)
  scores = query @ jnp.swapaxes(key, 2, 3) / (dim / num_heads) ** 0.5
  mixed = jax.nn.softmax(scores, axis=-1) @ value
  return mixed.transpose(0, 2, 1, 3).reshape(-1, dim)


def tokens(batch, length, dim):
  return jax.random.normal(jax.random.key(0), (batch * length, 3 * dim))


def with_gradient(function, qkv, *sizes):
  """What it makes, and the gradient of a sum that weighs all of it apart."""
  made, backward = jax.vjp(lambda qkv: function(qkv, *sizes), qkv)
  weights = jnp.sin(jnp.arange(made.size)).reshape(made.shape)
  return made, *backward(weights.astype(made.dtype))


@pytest.mark.parametrize(
  ("batch", "length", "dim", "num_heads"),
  [
    (2, 5, 12, 3),
    (3, 65, 96, 3),
    (2, 17, 66, 2),
    (2, 17, 128, 2),
    (1, 1, 8, 1),
  ],
)
def test_values_and_gradients_are_those_of_a_softmax(
  batch, length, dim, num_heads
):
  given = tokens(batch, length, dim), length, num_heads
  found = with_gradient(attention_products.attend, *given)
  wanted = with_gradient(defined, *given)
  for one, other in zip(found, wanted, strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)


def test_scores_of_any_size_stay_finite():
  """Some are thousands here, whose exp is none of float32's numbers."""
  given = 50 * tokens(2, 9, 16), 9, 2
  found = with_gradient(attention_products.attend, *given)
  wanted = with_gradient(defined, *given)
  assert np.isfinite(found[1]).all()
  np.testing.assert_allclose(found[0], wanted[0], rtol=0, atol=1e-4)


def test_bfloat16_is_as_near_as_its_rounding():
  qkv, *sizes = tokens(4, 33, 64), 33, 2
  exact = with_gradient(defined, qkv, *sizes)
  given = qkv.astype(jnp.bfloat16), *sizes
  for one, other in zip(
    with_gradient(attention_products.attend, *given), exact, strict=True
  ):
    assert one.dtype == jnp.bfloat16
    np.testing.assert_allclose(one.astype(float), other, rtol=0, atol=0.02)


def test_one_array_of_all_pairs_is_kept_for_the_backward_pass():
  """Where JAX would keep the powers, and then the weights."""

  def backward(qkv):
    return jax.vjp(lambda qkv: attention_products.attend(qkv, 40, 2), qkv)[1]

  kept = jax.make_jaxpr(backward)(tokens(2, 40, 8)).out_avals
  assert len([leaf for leaf in kept if leaf.shape[-2:] == (40, 40)]) == 1


@pytest.mark.parametrize(("width", "is_turned"), [(32, True), (33, False)])
def test_a_narrow_heads_gradients_are_computed_the_other_way(width, is_turned):
  """Queries' and values' rows, 65 of them, lie across."""
  qkv = jax.ShapeDtypeStruct((2 * 65, 3 * 3 * width), jnp.float32)
  step = jax.grad(lambda qkv: attention_products.attend(qkv, 65, 3).sum())
  text = jax.jit(step).lower(qkv).compile().as_text()
  assert (f"f32[2,3,{width},65]" in text) == is_turned
