"""Bytes from the forward to the backward pass."""

import jax
import jax.numpy as jnp

from relvit_jax.analysis.residuals import saved_bytes

WEIGHT = jax.ShapeDtypeStruct((5, 7), jnp.float32)
IMAGES = jax.ShapeDtypeStruct((3, 5), jnp.float32)


def test_a_linear_layer_keeps_its_input():
  def loss(weight, images):
    return jnp.sum(jnp.sin(images) @ weight)

  assert saved_bytes(loss, WEIGHT, IMAGES) == 3 * 5 * 4


def test_what_was_given_is_not_counted():
  def loss(weight, images):
    return jnp.sum(images @ weight)

  assert saved_bytes(loss, WEIGHT, IMAGES) == 0


def test_nothing_is_kept_for_what_has_no_gradient():
  def loss(weight, images):
    return jnp.sum(weight) + jnp.sum(jnp.sin(images))

  assert saved_bytes(loss, WEIGHT, IMAGES) == 0


def test_an_array_that_two_products_read_counts_once():
  def loss(weights, images):
    seen = jnp.sin(images)
    return jnp.sum(seen @ weights[0]) + jnp.sum(seen @ weights[1])

  assert saved_bytes(loss, [WEIGHT, WEIGHT], IMAGES) == 3 * 5 * 4


def test_parameters_in_another_type_are_not_counted():
  def loss(weights, images):
    half = [weight.astype(jnp.bfloat16) for weight in weights]
    # Its gradient reads the second weight, in half, and the cosine: [3, 7].
    seen = jnp.sin(images.astype(jnp.bfloat16) @ half[0])
    return jnp.sum(seen @ half[1])

  second = jax.ShapeDtypeStruct((7, 2), jnp.float32)
  cosine, seen, images = 3 * 7 * 2, 3 * 7 * 2, 3 * 5 * 2
  assert saved_bytes(loss, [WEIGHT, second], IMAGES) == cosine + seen + images


def test_random_masks_are_counted():
  def loss(weight, images, key):
    kept = jax.random.bernoulli(key, 0.5, (3, 7))
    return jnp.sum(jnp.where(kept, images @ weight, 0))

  key = jax.eval_shape(lambda: jax.random.key(0))
  assert saved_bytes(loss, WEIGHT, IMAGES, key) == 3 * 7


def test_it_grows_with_the_batch_alone():
  def loss(weight, images):
    fixed = jnp.arange(7.0)[None] * 2
    return jnp.sum(jnp.tanh(images @ weight) * fixed)

  twice = jax.ShapeDtypeStruct((6, 5), jnp.float32)
  assert saved_bytes(loss, WEIGHT, twice) == 2 * saved_bytes(
    loss, WEIGHT, IMAGES
  )
