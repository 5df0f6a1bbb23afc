"""The GPU's GELU against the definition, interpreted on a CPU.

On a machine with a GPU this file, run as a program, compiles it there.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from relvit_jax.models import gelu_triton
from relvit_jax.training import partitioning


def definition(x, bias):
  return jax.nn.gelu(x + bias[None], approximate=False)


def given(length, width, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(0))
  x = 2 * jax.random.normal(keys[0], (length, width))
  return x.astype(dtype), jax.random.normal(keys[1], (width,), dtype)


def both(gelu, x, bias):
  """Result, and gradients of an arbitrary sum of it."""

  def loss(x, bias):
    out = gelu(x, bias)
    factors = jnp.cos(jnp.arange(out.size)).reshape(out.shape)
    return jnp.sum(out.astype(jnp.float32) * factors), out

  gradients, out = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x, bias)
  return out, *gradients


def test_the_normal_distribution_and_its_powers():
  z = np.linspace(-9, 9, 2_001, dtype=np.float32)
  below, powers = gelu_triton.normal(jnp.asarray(z))
  exact = [0.5 * math.erfc(-one / math.sqrt(2)) for one in z.tolist()]
  np.testing.assert_allclose(below, exact, rtol=0, atol=3e-7)
  np.testing.assert_allclose(powers, np.exp(-0.5 * z * z), rtol=1e-5)


@pytest.mark.parametrize(
  ("length", "width"),
  [
    (128, 128),  # Tiles of the backward pass, whole.
    (5, 24),  # None is whole.
    (130, 160),  # Some are.
  ],
)
def test_it_is_gelu(length, width):
  x, bias = given(length, width)
  for our, want in zip(
    both(gelu_triton.gelu, x, bias), both(definition, x, bias), strict=True
  ):
    np.testing.assert_allclose(our, want, rtol=1e-5, atol=2e-5)


def near(dtype_given, exact):
  for our, want in zip(dtype_given, exact, strict=True):
    assert our.dtype == jnp.bfloat16
    np.testing.assert_allclose(
      our.astype(jnp.float32), want, atol=0.01 * np.abs(want).max()
    )


def test_bfloat16_is_as_near_as_its_rounding():
  x, bias = given(70, 48, jnp.bfloat16)
  wide = x.astype(jnp.float32), bias.astype(jnp.float32)
  near(both(gelu_triton.gelu, x, bias), both(definition, *wide))


def on_a_gpu():
  """Compares on the devices that there are."""
  assert jax.devices()[0].platform == "gpu", jax.devices()
  for length, width in ((4160, 1536), (130, 160), (65, 96)):
    x, bias = given(length, width, jnp.bfloat16)
    wide = x.astype(jnp.float32), bias.astype(jnp.float32)
    near(both(gelu_triton.gelu, x, bias), both(definition, *wide))


def test_compiled_for_a_gpu_it_is_the_same(run_on_a_gpu):
  run_on_a_gpu(__file__)


def test_every_device_takes_its_own_rows():
  """And none asks another but for the sum of the bias' gradient."""
  mesh = partitioning.make_mesh(fsdp=2)
  x, bias = given(32, 16)
  x = jax.device_put(x, NamedSharding(mesh, P(partitioning.DATA_AXES)))

  def gradients(gelu, x, bias):
    return jax.grad(lambda *both: jnp.sum(jnp.sin(gelu(*both))), (0, 1))(
      x, bias
    )

  program = jax.jit(
    partitioning.on_mesh(lambda *both: gradients(gelu_triton.gelu, *both), mesh)
  )
  text = program.lower(x, bias).compile().as_text()
  assert "all-gather" not in text
  assert "all-to-all" not in text
  made = program(x, bias)
  assert made[0].sharding.spec[0] == partitioning.DATA_AXES
  wanted = gradients(definition, x, bias)
  for our, want in zip(made, wanted, strict=True):
    np.testing.assert_allclose(our, want, atol=2e-5)


if __name__ == "__main__":
  on_a_gpu()
