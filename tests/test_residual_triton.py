"""The GPU's sum and norm against the definition, interpreted on a CPU.

On a machine with a GPU this file, run as a program, compiles it there.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from relvit_jax.models import residual_triton
from relvit_jax.training import partitioning

EPSILON = 1e-3


def definition(x, branch, bias, factors):
  factors = jnp.repeat(factors, len(x) // len(factors))
  added = x + (branch + bias[None]) * factors[:, None]
  mean, variance = added.mean(axis=1), added.var(axis=1)
  scale = jax.lax.rsqrt(variance + EPSILON)
  return added, (added - mean[:, None]) * scale[:, None]


def ours(*given):
  return residual_triton.add_and_normalise(*given, EPSILON)


def given(batch, length, dim, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(0), 4)
  shapes = (batch * length, dim), (batch * length, dim), (dim,)
  x, branch, bias = (
    jax.random.normal(key, shape).astype(dtype)
    for key, shape in zip(keys, shapes, strict=False)
  )
  return x, branch, bias, 2 * jax.random.bernoulli(keys[3], 0.5, (batch,))


def both(function, x, branch, bias, factors):
  """Results, and gradients of an arbitrary sum of both."""

  def loss(*learnt):
    made = function(*learnt, factors.astype(jnp.float32))
    waves = jnp.cos(jnp.arange(x.size)).reshape(x.shape)
    added, normalised = (one.astype(jnp.float32) for one in made)
    return jnp.sum(added * waves + jnp.sin(normalised) * waves[::-1]), made

  gradients, made = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(
    x, branch, bias
  )
  return *made, *gradients


@pytest.mark.parametrize(
  ("batch", "length", "dim"),
  [
    (4, 8, 32),  # Tiles of the backward pass, whole.
    (3, 5, 24),  # None is whole.
    (5, 13, 16),  # Some are.
  ],
)
def test_it_is_the_sum_and_its_norm(batch, length, dim):
  numbers = given(batch, length, dim)
  for our, want in zip(
    both(ours, *numbers), both(definition, *numbers), strict=True
  ):
    np.testing.assert_allclose(our, want, rtol=1e-5, atol=1e-5)


def test_an_image_whose_branch_is_dropped_keeps_its_tokens():
  x, branch, bias, _ = given(2, 3, 16)
  added, _ = ours(x, branch, bias, jnp.array([0.0, 1.0]))
  np.testing.assert_array_equal(added[:3], x[:3])
  wanted = (x + branch + bias[None])[3:]
  np.testing.assert_allclose(added[3:], wanted, rtol=1e-6, atol=1e-6)


def test_nothing_learns_by_the_factors():
  x, branch, bias, factors = given(2, 3, 16)
  gradient = jax.grad(lambda f: ours(x, branch, bias, f)[0].sum())(
    factors.astype(jnp.float32)
  )
  np.testing.assert_array_equal(gradient, [0, 0])


def near(found, exact):
  for our, want in zip(found, exact, strict=True):
    assert our.dtype == jnp.bfloat16
    np.testing.assert_allclose(
      our.astype(jnp.float32), want, atol=0.02 * np.abs(want).max()
    )


def in_bfloat16(*shape):
  numbers = given(*shape, jnp.bfloat16)
  wide = [one.astype(jnp.float32) for one in numbers]
  near(both(ours, *numbers), both(definition, *wide))


def test_bfloat16_is_as_near_as_its_rounding():
  in_bfloat16(4, 17, 48)


def on_a_gpu():
  """Compares on the devices that there are."""
  assert jax.devices()[0].platform == "gpu", jax.devices()
  for shape in ((64, 65, 384), (3, 50, 192), (2, 17, 48)):
    in_bfloat16(*shape)


def test_compiled_for_a_gpu_it_is_the_same(run_on_a_gpu):
  run_on_a_gpu(__file__)


def test_every_device_takes_its_own_images():
  """And none asks another but for the sum of the bias' gradient."""
  mesh = partitioning.make_mesh(fsdp=2)
  numbers = given(8, 5, 16)
  shared = NamedSharding(mesh, P(partitioning.DATA_AXES))
  placed = [
    one if one.ndim == 1 and len(one) == 16 else jax.device_put(one, shared)
    for one in numbers
  ]
  program = jax.jit(
    partitioning.on_mesh(lambda *given: both(ours, *given), mesh)
  )
  text = program.lower(*placed).compile().as_text()
  assert "all-gather" not in text
  assert "all-to-all" not in text
  for our, want in zip(
    program(*placed), both(definition, *numbers), strict=True
  ):
    np.testing.assert_allclose(our, want, rtol=1e-5, atol=1e-5)


if __name__ == "__main__":
  on_a_gpu()
