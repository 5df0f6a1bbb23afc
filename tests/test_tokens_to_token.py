"""What stands before the blocks of T2T-ViT."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from relvit_jax.models import layers
from relvit_jax.models import tokens_to_token as t2t

EPSILON = 1e-5


def inputs(*shape):
  return jax.random.normal(jax.random.key(1), shape)


def test_windows_of_three_every_two():
  """Read by rows, with zeros around."""
  image = jnp.arange(1.0, 17).reshape(1, 4, 4, 1)
  np.testing.assert_array_equal(
    t2t.unfold(image, 3, 2)[0],
    [
      [[0, 0, 0, 0, 1, 2, 0, 5, 6], [0, 0, 0, 2, 3, 4, 6, 7, 8]],
      [
        [0, 5, 6, 0, 9, 10, 0, 13, 14],
        [6, 7, 8, 10, 11, 12, 14, 15, 16],
      ],
    ],
  )


def test_the_channels_of_a_place_stay_together():
  image = jnp.arange(1.0, 9).reshape(1, 2, 2, 2)
  zeros = [0, 0]
  np.testing.assert_array_equal(
    t2t.unfold(image, 3, 2)[0, 0, 0],
    [*zeros * 4, 1, 2, 3, 4, *zeros, 5, 6, 7, 8],
  )


@pytest.mark.parametrize(("size", "stride"), [(7, 4), (3, 2)])
def test_windows_are_slices_of_the_padded_image(size, stride):
  image = np.asarray(inputs(2, 12, 8, 3))
  found = t2t.unfold(jnp.asarray(image), size, stride)
  assert found.shape == (2, 12 // stride, 8 // stride, size**2 * 3)
  pad = stride // 2
  padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  for row in range(12 // stride):
    for column in range(8 // stride):
      top, left = row * stride, column * stride
      window = padded[:, top : top + size, left : left + size]
      np.testing.assert_array_equal(
        found[:, row, column], window.reshape(2, -1)
      )


def normalised(x, norm):
  centred = x - x.mean(axis=-1, keepdims=True)
  deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
  return centred / deviation * np.asarray(norm.scale) + np.asarray(norm.bias)


def affine(x, linear):
  bias = 0 if linear.bias is None else np.asarray(linear.bias)
  return x @ np.asarray(linear.kernel) + bias


def after_attention(module, x):
  """x + MLP(norm(x))"""
  hidden = affine(normalised(x, module.norm2), module.mlp.fc1)
  error_function = np.vectorize(math.erf)
  hidden = hidden * (1 + error_function(hidden / math.sqrt(2))) / 2
  return x + affine(hidden, module.mlp.fc2)


def drawn(make):
  """A module whose arrays are all drawn anew: none is at 0 or 1 by chance."""
  graphdef, state = nnx.split(nnx.eval_shape(make))
  random = np.random.default_rng(2)
  state = jax.tree.map(
    lambda leaf: jnp.asarray(random.normal(0, 0.3, leaf.shape), leaf.dtype),
    state,
  )
  return nnx.merge(graphdef, state)


def test_a_performer_is_attention_whose_kernel_is_a_product_of_features():
  performer = drawn(lambda: t2t.TokenPerformer(10, 6, rngs=nnx.Rngs(0)))
  x = inputs(2, 5, 10)
  narrow = affine(normalised(np.asarray(x), performer.norm1), performer.kqv)
  key, query, value = np.split(narrow, 3, axis=-1)
  w = np.asarray(performer.w)  # [features, width]

  def features(x):
    half = (x**2).sum(axis=-1, keepdims=True) / 2
    return np.exp(x @ w.T - half) / np.sqrt(3)

  kernel = features(query) @ features(key).swapaxes(1, 2)  # [B, T, T]
  kernel /= kernel.sum(axis=-1, keepdims=True)
  mixed = value + affine(kernel @ value, performer.proj)
  np.testing.assert_allclose(
    performer(x), after_attention(performer, mixed), atol=1e-5
  )


def test_a_token_transformer_scales_by_the_width_of_its_input():
  transformer = drawn(lambda: t2t.TokenTransformer(10, 6, rngs=nnx.Rngs(0)))
  attn, x = transformer.attn, inputs(2, 5, 10)
  assert attn.qkv.bias is None
  narrow = affine(normalised(np.asarray(x), transformer.norm1), attn.qkv)
  query, key, value = np.split(narrow, 3, axis=-1)
  weights = np.exp(query @ key.swapaxes(1, 2) / np.sqrt(10))
  weights /= weights.sum(axis=-1, keepdims=True)
  mixed = value + affine(weights @ value, attn.proj)
  np.testing.assert_allclose(
    transformer(x), after_attention(transformer, mixed), atol=1e-5
  )


def test_random_features_are_orthogonal_and_fixed():
  performer = t2t.TokenPerformer(10, 64, rngs=nnx.Rngs(0))
  w = np.asarray(performer.w)
  np.testing.assert_allclose(w @ w.T, 32 * np.eye(32), atol=1e-4)
  assert set(nnx.to_pure_dict(nnx.state(performer, layers.Fixed))) == {"w"}
  assert "w" not in nnx.to_pure_dict(nnx.state(performer, nnx.Param))


def make(**options):
  return t2t.TokensToToken(12, rngs=nnx.Rngs(0), **({"token_dim": 4} | options))


@pytest.mark.parametrize("tokens_type", t2t.TOKENS_TYPES)
def test_a_sixteenth_of_the_sides_remains(tokens_type):
  tokens = jax.eval_shape(
    lambda images: make(tokens_type=tokens_type)(images), inputs(2, 32, 48, 3)
  )
  assert tokens.shape == (2, 2 * 3, 12)


def test_a_token_sees_the_pixels_around_its_place():
  """Of the last split's window of 3×3, in turn of 3×3, of 7×7 pixels."""
  model = drawn(lambda: make(token_dim=2))
  # Attention sees everything; without it only the windows are left.
  for attention in (model.attention1, model.attention2):
    for part in (attention.proj, attention.mlp.fc2):
      part.kernel.set_value(0 * part.kernel[...])
  image = inputs(1, 96, 64, 3)
  forward = jax.jit(lambda image: model(image).reshape(6, 4, 12))

  def seen_by(row, column):
    change = forward(image.at[0, row, column].add(5.0)) - forward(image)
    return np.argwhere(np.abs(change).max(axis=-1) > 1e-6).tolist()

  # Token i reaches from pixel 16 i - 14 to 16 i + 16.
  assert seen_by(33, 33) == [[2, 2]]
  assert seen_by(34, 33) == [[2, 2], [3, 2]]
  assert seen_by(33, 32) == [[2, 1], [2, 2]]


@pytest.mark.parametrize(
  ("options", "rate"),
  [
    ({}, 0.1),
    ({"dropout_rate": 0.0}, 0.0),
    ({"tokens_type": "transformer"}, 0.0),
    ({"tokens_type": "transformer", "dropout_rate": 0.2}, 0.2),
  ],
)
def test_official_dropout_is_in_the_performers_alone(options, rate):
  model = nnx.eval_shape(lambda: make(**options))
  rates = {
    module.rate
    for attention in (model.attention1, model.attention2)
    for _, module in nnx.iter_modules(attention)
    if isinstance(module, nnx.Dropout)
  }
  assert max(rates) == rate


def test_both_branches_of_a_performer_are_dropped():
  performer = drawn(lambda: t2t.TokenPerformer(10, 6, rngs=nnx.Rngs(0)))
  x = inputs(2, 5, 10)
  performer.dropout = nnx.Dropout(1.0)
  value = performer.kqv(performer.norm1(x))[:, :, 12:]
  dropped = performer(x, train=True, rngs=nnx.Rngs(dropout=0))
  np.testing.assert_allclose(dropped, value, atol=1e-6)
  assert not np.allclose(performer(x), value, atol=1e-3)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (
      lambda: make(tokens_type="convolution"),
      "tokens_type='convolution' must be one of performer, transformer",
    ),
    (
      lambda: t2t.TokensToToken(12, token_dim=1, rngs=nnx.Rngs(0)),
      "token_dim=1 must be at least 2",
    ),
  ],
)
def test_what_does_not_fit_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
