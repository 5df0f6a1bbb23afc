"""The kernels of the heads, by hand and as XLA compiles their products."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from relvit_jax.analysis import hlo
from relvit_jax.models import flops, head_kernels, heads

MADE = head_kernels.Made(65, (8, 8), 384, 384)


def test_pair_heads():
  forward = {
    task: flops.total(head_kernels.of(task, MADE, None)).forward
    for task in ("relation", "distance", "angle")
  }
  assert forward == {
    "relation": 2 * (2 * 64 * 384 * 378 + 64 * 64 * 378),
    "distance": 2 * (2 * 64 * 384 * 384 + 64 * 64 * 384),
    "angle": 2 * (2 * 64 * 384 * 384 + 64 * 64 * 384),
  }


@pytest.mark.parametrize(
  ("mode", "use_abs"), [("l1", True), ("ce", True), ("cbr", False)]
)
def test_dense_relative_localisation_is_what_is_compiled(mode, use_abs):
  width, grid_size, num_pairs, batch = 8, (2, 3), 5, 2
  head = heads.DenseRelativeLocalisation(
    width, grid_size, mode, use_abs, hidden_dim=16, rngs=nnx.Rngs(0)
  )
  graphdef, params = nnx.split(head)
  first = jnp.zeros((batch, num_pairs, 2), jnp.int32)
  second = first + 1

  def loss(params, tokens):
    return jnp.sum(nnx.merge(graphdef, params)(tokens, first, second) ** 2)

  gradient = jax.jit(jax.grad(loss, (0, 1)))
  text = gradient.lower(params, jnp.ones((batch, 6, width))).compile().as_text()
  formula = flops.total(
    head_kernels.drloc_head(
      width, grid_size, num_pairs, mode, use_abs, hidden_dim=16
    )
  )
  assert hlo.dot_flops(text) / batch == pytest.approx(
    formula.training, rel=0.02
  )
