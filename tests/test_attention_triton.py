"""The GPU's attention kernel against the definition, interpreted on a CPU.

On a machine with a GPU this file, run as a program, compiles it there.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from relvit_jax.models import attention_tile, attention_triton
from relvit_jax.training import partitioning


def definition(qkv, bias, length, num_heads):
  added = qkv + bias[None]
  split = added.reshape(
    -1, length, 3, num_heads, added.shape[1] // 3 // num_heads
  )
  query, key, value = (split[:, :, i] for i in range(3))
  scores = jnp.einsum("bihd,bjhd->bhij", query, key) * query.shape[-1] ** -0.5
  mixed = jnp.einsum("bhij,bjhd->bihd", jax.nn.softmax(scores), value)
  return mixed.reshape(len(qkv), -1)


def given(batch, length, dim, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(0))
  qkv = 2 * jax.random.normal(keys[0], (batch * length, 3 * dim))
  return qkv.astype(dtype), jax.random.normal(keys[1], (3 * dim,), dtype)


def both(attend, qkv, bias, length, num_heads):
  """Result, and gradients of an arbitrary sum of it."""

  def loss(qkv, bias):
    out = attend(qkv, bias, length, num_heads)
    factors = jnp.cos(jnp.arange(out.size)).reshape(out.shape)
    return jnp.sum(out.astype(jnp.float32) * factors), out

  gradients, out = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(qkv, bias)
  return out, *gradients


@pytest.mark.parametrize(
  ("batch", "length", "width", "num_heads"),
  [
    (2, 17, 16, 2),  # A tile, and one token alone.
    (3, 16, 16, 1),  # A tile.
    (2, 12, 32, 2),  # A tile that is not full.
    (1, 65, 16, 1),
  ],
)
def test_it_is_softmax_attention(batch, length, width, num_heads):
  qkv, bias = given(batch, length, width * num_heads)
  ours = both(attention_triton.attend, qkv, bias, length, num_heads)
  wanted = both(definition, qkv, bias, length, num_heads)
  for our, want in zip(ours, wanted, strict=True):
    np.testing.assert_allclose(our, want, atol=2e-5)


def test_no_softmax_moves_by_what_is_added_to_all_keys():
  """So its gradient is 0, and not what rounding makes of 0."""
  qkv, bias = given(2, 17, 32)
  _, _, gradient = both(attention_triton.attend, qkv, bias, 17, 2)
  query, key, value = np.split(np.asarray(gradient), 3)
  assert (key == 0).all()
  assert np.abs(query).min() > 0
  assert np.abs(value).min() > 0


def test_bfloat16_is_as_near_as_its_rounding():
  qkv, bias = given(4, 17, 32, jnp.bfloat16)
  wide = (qkv.astype(jnp.float32), bias.astype(jnp.float32))
  exact = both(definition, *wide, 17, 2)
  ours = both(attention_triton.attend, qkv, bias, 17, 2)
  for our, want in zip(ours, exact, strict=True):
    assert our.dtype == jnp.bfloat16
    np.testing.assert_allclose(
      our.astype(jnp.float32), want, atol=0.03 * np.abs(want).max()
    )


def on_a_gpu():
  """Compares on the devices that there are."""
  assert jax.devices()[0].platform == "gpu", jax.devices()
  for length, width, num_heads in ((65, 64, 6), (50, 64, 3), (17, 16, 2)):
    qkv, bias = given(32, length, width * num_heads, jnp.bfloat16)
    wide = (qkv.astype(jnp.float32), bias.astype(jnp.float32))
    with jax.default_matmul_precision("highest"):
      exact = both(definition, *wide, length, num_heads)
    ours = both(attention_triton.attend, qkv, bias, length, num_heads)
    for our, want in zip(ours, exact, strict=True):
      np.testing.assert_allclose(
        our.astype(jnp.float32), want, atol=0.03 * np.abs(want).max()
      )


def test_compiled_for_a_gpu_it_is_the_same(run_on_a_gpu):
  run_on_a_gpu(__file__)


def test_every_device_takes_its_own_images():
  """And none asks another but for the sum of the bias' gradient."""
  mesh = partitioning.make_mesh(fsdp=2)
  qkv, bias = given(8, 17, 16)
  qkv = jax.device_put(qkv, NamedSharding(mesh, P(partitioning.DATA_AXES)))

  def gradients(qkv, bias):
    return jax.grad(
      lambda *both: jnp.sum(jnp.sin(attention_triton.attend(*both, 17, 1))),
      (0, 1),
    )(qkv, bias)

  program = jax.jit(partitioning.on_mesh(gradients, mesh))
  text = program.lower(qkv, bias).compile().as_text()
  assert "all-gather" not in text
  assert "all-to-all" not in text
  made = program(qkv, bias)
  assert made[0].sharding.spec[0] == partitioning.DATA_AXES
  wanted = jax.grad(
    lambda *both: jnp.sum(jnp.sin(definition(*both, 17, 1))), (0, 1)
  )(qkv, bias)
  for our, want in zip(made, wanted, strict=True):
    # Of the largest, as sums over tokens lose what is small beside them.
    np.testing.assert_allclose(
      our, want, rtol=0, atol=1e-6 * np.abs(want).max()
    )


@pytest.mark.parametrize(
  ("length", "dim", "num_heads", "why"),
  [
    (65, 384, 6, ""),
    (50, 384, 6, ""),
    (65, 192, 12, ""),
    (197, 384, 6, "197 tokens are more than 65"),
    (66, 384, 6, "66 tokens are more than 65"),
    (65, 384, 4, "heads 96 wide are no power of two from 16 on"),
    (65, 24, 3, "heads 8 wide are no power of two from 16 on"),
  ],
)
def test_what_does_not_fit_is_said(length, dim, num_heads, why):
  assert attention_triton.obstacle(length, dim, num_heads) == why


def test_a_jax_without_triton_has_no_kernel(monkeypatch):
  monkeypatch.setattr(attention_triton, "plgpu", None)
  monkeypatch.setattr(attention_tile, "plgpu", None)
  assert attention_triton.obstacle(65, 384, 6).endswith("has no Triton")


if __name__ == "__main__":
  on_a_gpu()
