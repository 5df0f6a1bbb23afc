"""The attention kernel against the definition, interpreted on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from relvit_jax.models import attention_kernel
from relvit_jax.training import partitioning


def definition(qkv, length, num_heads):
  split = qkv.reshape(-1, length, 3, num_heads, qkv.shape[1] // 3 // num_heads)
  query, key, value = (split[:, :, i] for i in range(3))
  scores = jnp.einsum("bihd,bjhd->bhij", query, key) * query.shape[-1] ** -0.5
  mixed = jnp.einsum("bhij,bjhd->bihd", jax.nn.softmax(scores), value)
  return mixed.reshape(len(qkv), -1)


def rows(batch, length, dim, dtype=jnp.float32):
  drawn = jax.random.normal(jax.random.key(0), (batch * length, 3 * dim))
  return (2 * drawn).astype(dtype)


def both(attend, qkv, length, num_heads):
  """Result, and gradient of an arbitrary sum of it."""

  def loss(qkv):
    out = attend(qkv, length, num_heads)
    return jnp.sum(out.astype(jnp.float32) * jnp.cos(out.size)), out

  gradient, out = jax.jit(jax.grad(loss, has_aux=True))(qkv)
  return out, gradient


@pytest.mark.parametrize(
  ("batch", "length", "dim", "num_heads"),
  [
    (16, 5, 16, 2),  # One whole block.
    (20, 5, 16, 2),  # The second block is not full.
    (2, 5, 16, 1),  # Less than one.
    (3, 16, 24, 3),  # A block an image.
  ],
)
def test_it_is_softmax_attention(batch, length, dim, num_heads):
  qkv = rows(batch, length, dim)
  ours = both(attention_kernel.attend, qkv, length, num_heads)
  wanted = both(definition, qkv, length, num_heads)
  for our, want in zip(ours, wanted, strict=True):
    np.testing.assert_allclose(our, want, atol=1e-5)


def test_bfloat16_is_as_near_as_its_rounding():
  qkv = rows(4, 6, 16, jnp.bfloat16)
  exact = both(definition, qkv.astype(jnp.float32), 6, 2)
  ours = both(attention_kernel.attend, qkv, 6, 2)
  for our, want in zip(ours, exact, strict=True):
    assert our.dtype == jnp.bfloat16
    np.testing.assert_allclose(
      our.astype(jnp.float32), want, atol=0.03 * np.abs(want).max()
    )


def test_every_device_takes_its_own_images():
  """And none asks another: there is no collective in the program."""
  mesh = partitioning.make_mesh(fsdp=2)
  qkv = jax.device_put(
    rows(16, 5, 16), NamedSharding(mesh, P(partitioning.DATA_AXES))
  )

  def gradient(qkv):
    return jax.grad(
      lambda qkv: jnp.sum(jnp.sin(attention_kernel.attend(qkv, 5, 2)))
    )(qkv)

  compiled = jax.jit(partitioning.on_mesh(gradient, mesh)).lower(qkv).compile()
  assert "all-" not in compiled.as_text()
  made = compiled(qkv)
  assert made.sharding.spec[0] == partitioning.DATA_AXES
  wanted = jax.grad(lambda qkv: jnp.sum(jnp.sin(definition(qkv, 5, 2))))(qkv)
  np.testing.assert_allclose(made, wanted, atol=1e-5)


@pytest.mark.parametrize(
  ("length", "dim", "num_heads", "why"),
  [
    (65, 384, 6, ""),
    (50, 384, 6, ""),
    (785, 384, 6, "785 tokens are more than 256"),
    (65, 12, 3, "heads 4 wide are no multiple of 8"),
    (65, 768, 12, "16 images take 10.7 MiB of a core's memory, above 6"),
  ],
)
def test_what_does_not_fit_is_said(length, dim, num_heads, why):
  assert attention_kernel.obstacle(length, dim, num_heads, 2) == why
