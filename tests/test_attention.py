"""Attention, by its properties, however it is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from relvit_jax.models import attention


def tokens(batch=2, length=5, dim=12):
  return jax.random.normal(jax.random.key(1), (batch, length, dim))


def test_attention_weights_are_shares():
  module = attention.Attention(12, 3, rngs=nnx.Rngs(0))
  weights = module.weights(tokens())
  assert weights.shape == (2, 3, 5, 5)
  np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)


def test_attention_of_equal_tokens_is_even():
  module = attention.Attention(12, 3, rngs=nnx.Rngs(0))
  weights = module.weights(jnp.ones((1, 4, 12)))
  np.testing.assert_allclose(weights, 0.25, atol=1e-6)


def test_masks_say_who_may_attend_to_whom():
  table = attention.attention_mask("diagonal", 3)
  assert table.tolist() == [
    [True, False, False],
    [False, True, False],
    [False, False, True],
  ]
  table = attention.attention_mask("diagonal_cls_row", 3)
  assert table.tolist() == [
    [True, True, True],
    [False, True, False],
    [False, False, True],
  ]


def test_masked_attention_returns_the_values_themselves():
  """And has gradients, though what is masked is infinitely unlikely."""
  module = attention.Attention(12, 3, mask="diagonal", rngs=nnx.Rngs(0))
  x = tokens()
  value = module.qkv(x)[..., 24:]
  np.testing.assert_allclose(module(x), module.proj(value), atol=1e-6)
  gradient = jax.grad(lambda x: module(x).sum())(x)
  assert np.isfinite(gradient).all()
  assert (np.abs(gradient).max(axis=-1) > 0).all()


def test_heads_that_do_not_divide_the_width_are_refused():
  with pytest.raises(ValueError, match=r"num_heads=5 must divide .*=12"):
    attention.Attention(12, 5, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
  "implementation", ["products", "kernel", "triton", "xla"]
)
def test_every_implementation_computes_the_same(implementation):
  x = tokens(batch=3, length=7, dim=48)
  plain, other = (
    attention.Attention(48, 3, implementation=name, rngs=nnx.Rngs(0))
    for name in ("einsum", implementation)
  )

  def loss(x, module):
    return (module(x) * jnp.sin(jnp.arange(48))[None, None]).sum()

  np.testing.assert_allclose(other(x), plain(x), atol=1e-6)
  np.testing.assert_allclose(
    jax.grad(loss)(x, other), jax.grad(loss)(x, plain), atol=1e-5
  )


@pytest.mark.parametrize("length", [6, 7])
def test_cudnn_is_given_an_even_number_of_tokens(length, monkeypatch):
  """And is told how many there are; it cannot differentiate an odd number."""
  library, seen = jax.nn.dot_product_attention, []

  def without_a_gpu(query, *others, implementation, **known):
    seen.append((implementation, query.shape[1]))
    return library(query, *others, implementation="xla", **known)

  monkeypatch.setattr(jax.nn, "dot_product_attention", without_a_gpu)
  x = tokens(batch=3, length=length, dim=48)
  plain, other = (
    attention.Attention(48, 3, implementation=name, rngs=nnx.Rngs(0))
    for name in ("einsum", "cudnn")
  )
  np.testing.assert_allclose(other(x), plain(x), atol=1e-6)
  np.testing.assert_allclose(
    jax.grad(lambda x: jnp.sum(jnp.sin(other(x))))(x),
    jax.grad(lambda x: jnp.sum(jnp.sin(plain(x))))(x),
    atol=1e-5,
  )
  assert set(seen) == {("cudnn", length + length % 2)}


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"implementation": "flash"}, "attention='flash' does not exist; there"),
    (
      {"implementation": "kernel", "mask": "diagonal"},
      "attention='kernel' has no attention_mask='diagonal'",
    ),
    (
      {"implementation": "cudnn", "attention_dropout_rate": 0.1},
      "attention='cudnn' has no attention_dropout_rate=0.1",
    ),
  ],
)
def test_what_an_implementation_cannot_do_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    attention.Attention(12, 3, rngs=nnx.Rngs(0), **options)
