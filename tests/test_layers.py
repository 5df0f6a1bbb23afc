"""What all backbones share, by its properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from relvit_jax.models import layers


def test_patch_embed_is_one_linear_map_of_each_patch():
  embed = layers.PatchEmbed(2, 12, rngs=nnx.Rngs(0))
  image = np.arange(4 * 4 * 3, dtype=np.float32).reshape(1, 4, 4, 3)
  pixels = image[0, 2:, :2].reshape(-1)
  np.testing.assert_allclose(
    embed(jnp.asarray(image))[0, 2],
    pixels @ np.asarray(embed.proj.kernel) + np.asarray(embed.proj.bias),
    rtol=1e-5,
  )


def test_heads_start_within_pytorchs_bounds():
  linear = layers.torch_linear(100, 50, dtype=None, rngs=nnx.Rngs(0))
  for param in jax.tree.leaves(nnx.state(linear)):
    values = np.abs(np.asarray(param))
    assert 0.09 < values.max() <= 0.1  # 1 / √100.


def test_rows_are_tokens_in_order():
  x = jnp.arange(12).reshape(2, 3, 2).astype(jnp.float32)
  assert layers.rows(x).tolist() == [[2 * i, 2 * i + 1] for i in range(6)]


def paths(rates, batch=4_000, train=True):
  rngs = nnx.Rngs(dropout=0)
  return list(layers.draw_paths(rngs, rates, batch, train))


@pytest.mark.parametrize("shape", [(48, 8), (8, 48), (8, 8)])
def test_a_product_has_the_gradients_of_a_product(shape):
  keys = jax.random.split(jax.random.key(0), 3)
  x, kernel = (
    jax.random.normal(keys[0], (20, shape[0])),
    jax.random.normal(keys[1], shape),
  )
  weight = jax.random.normal(keys[2], (20, shape[1]))

  def learnt(product):
    return jax.grad(lambda *given: jnp.sum(weight * product(*given)), (0, 1))

  np.testing.assert_array_equal(layers.product(x, kernel), x @ kernel)
  for found, expected in zip(
    learnt(layers.product)(x, kernel),
    learnt(jnp.matmul)(x, kernel),
    strict=True,
  ):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ("platform", "shape", "is_turned"),
  [
    ("cpu", (48, 8), True),
    ("cpu", (8, 48), False),
    ("cpu", (12, 8), False),
    ("tpu", (48, 8), False),
    ("cuda", (48, 8), False),
  ],
)
def test_a_cpu_turns_the_gradient_of_a_tall_kernel(platform, shape, is_turned):
  learnt = jax.jit(jax.grad(lambda *given: jnp.sum(layers.product(*given)), 1))
  traced = learnt.trace(jnp.ones((2, shape[0])), jnp.ones(shape))
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  assert ("optimization_barrier" in text) == is_turned


def test_paths_are_dropped_as_often_as_the_rate_says_and_rescaled():
  never, half, often = paths([0.0, 0.5, 0.8])
  assert never is None
  assert half.shape == often.shape == (2, 4_000)
  assert np.unique(half).tolist() == [0, 2]
  np.testing.assert_allclose(np.unique(often), [0, 5], rtol=1e-6)
  # Standard deviations of these means: 0.016 and 0.032.
  np.testing.assert_allclose(half.mean(axis=1), 1, atol=0.07)
  np.testing.assert_allclose(often.mean(axis=1), 1, atol=0.13)


def test_the_two_branches_of_a_block_are_dropped_apart():
  [half] = paths([0.5])
  both = np.mean((np.asarray(half) > 0).all(axis=0))
  np.testing.assert_allclose(both, 0.25, atol=0.03)


def test_nothing_is_dropped_while_testing_or_at_rate_zero():
  assert paths([0.5, 0.5], train=False) == [None, None]
  assert list(layers.draw_paths(None, [0.0], 2, True)) == [None]


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_side_by_side_is_each_layer(dtype):
  first, second = (
    layers.linear(3, 5, use_bias=use, dtype=dtype, rngs=nnx.Rngs(i))
    for i, use in enumerate((True, False))
  )
  first.bias[...] = jnp.arange(5.0)
  x = jax.random.normal(jax.random.key(1), (2, 4, 3))
  made = layers.side_by_side([first, second], x)
  for part, linear in zip(made, (first, second), strict=True):
    assert part.dtype == (dtype or jnp.float32)
    np.testing.assert_allclose(part, linear(x), rtol=1e-6)


@pytest.mark.parametrize("widths", [(5, 7), (64,), (60, 4, 65)])
def test_one_product_is_each_of_them_and_so_are_its_gradients(widths):
  """What fills the last tile has no part in it."""
  keys = jax.random.split(jax.random.key(0), len(widths) + 1)
  x = jax.random.normal(keys[0], (2, 4, 3))
  kernels = [
    jax.random.normal(key, (3, width))
    for key, width in zip(keys[1:], widths, strict=True)
  ]

  def each(x, *kernels):
    return [x @ kernel for kernel in kernels]

  def gradients(function):
    def loss(x, kernels):
      return sum(jnp.sum(jnp.sin(part)) for part in function(x, *kernels))

    return jax.grad(loss, (0, 1))(x, kernels)

  for function in (lambda f: f(x, *kernels), gradients):
    jax.tree.map(
      lambda ours, want: np.testing.assert_allclose(
        ours, want, rtol=1e-5, atol=1e-6
      ),
      function(layers.by_one_product),
      function(each),
    )


def test_only_a_gpu_is_given_one_product():
  linears = [
    layers.linear(3, 5, use_bias=False, dtype=None, rngs=nnx.Rngs(i))
    for i in range(4)
  ]

  def products(platform):
    made = jax.jit(lambda x: layers.side_by_side(linears, x))
    traced = made.trace(jnp.ones((2, 3)))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    return text.count("stablehlo.dot_general")

  assert {name: products(name) for name in ("cuda", "tpu", "cpu")} == {
    "cuda": 1,
    "tpu": 4,
    "cpu": 4,
  }
