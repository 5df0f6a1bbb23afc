"""What ran, by scope and kind."""

import jax
import jax.numpy as jnp
import pytest

from relvit_jax.analysis import op_profile, part

SIDE, DEEP = 192, 4


def loss(weights, x):
  with jax.named_scope("attention"):
    # Of the weights, or XLA would compute it once for all steps.
    x = jnp.einsum("bij,bkj->bik", x * weights[None], x)
  with jax.named_scope("mlp"), jax.named_scope("inside"):
    x = jax.lax.erf(x.reshape(-1, SIDE) @ weights)
  return jnp.sum(jnp.sin(x))


def many(x, carry, seed, count):
  """As many gradients as asked for, each of the weights that came before."""

  def one(i, weights):
    with jax.named_scope("optimizer"):
      return weights - 1e-3 * jax.grad(loss)(weights, x) * (seed + i)

  return jax.lax.fori_loop(0, count, one, carry)


@pytest.fixture(scope="module")
def found():
  x = jax.random.normal(jax.random.key(0), (DEEP, SIDE, SIDE))
  made = part.carried("gradient", many, (x,), jnp.eye(SIDE))
  return op_profile.measure(made, 7)


def test_products_count_where_they_stand(found):
  flops = {(row["scope"], row["kind"]): row["flops"] for row in found["rows"]}
  one = 2 * DEEP * SIDE**3
  # Both forward; backward of one factor of the first, and of both of the next,
  # which XLA may compute with its own.
  assert sum(flops.values()) == 5 * one
  assert flops["attention", "batched products"] >= one
  assert flops["mlp", "products"] >= 2 * one
  assert flops["mlp", "elementwise"] == 0


def test_times_are_of_a_step(found):
  assert found["steps"] == 7
  for row in found["rows"]:
    assert 0 < row["seconds"] < found["seconds"]


def test_rows_end_with_what_is_left_and_all(found):
  *rows, left, total = op_profile.rows(found)
  assert [row[0] for row in (left, total)] == ["idle, or side by side", "all"]
  assert total[1] == pytest.approx(left[1] + sum(row[1] for row in rows))
  assert total[2] == sum(row[2] for row in rows)


PROFILE = {
  "steps": 4,
  "seconds": 1.0,
  "rows": [
    {"scope": "mlp", "kind": "products", "seconds": 0.5, "flops": 40e9},
    {"scope": "mlp", "kind": "elementwise", "seconds": 0.3, "flops": 0},
  ],
}

TABLE = """\
                                   ms  of step  of rate     lost
mlp, products                  500.00   50.0 %     80 %   10.0 %
mlp, elementwise               300.00   30.0 %        –   30.0 %
idle, or side by side          200.00   20.0 %        –   20.0 %
all                           1000.00  100.0 %     40 %   60.0 %"""


def test_the_table():
  assert "\n".join(op_profile.lines(PROFILE, 100e9)) == TABLE


def test_the_readme_leaves_out_what_is_nothing():
  small = {"scope": "norm", "kind": "elementwise", "seconds": 5e-3, "flops": 0}
  found = PROFILE | {"rows": [*PROFILE["rows"], small]}
  assert op_profile.markdown(found, 100e9).splitlines() == [
    "|  | ms | of step | of rate | lost |",
    "| --- | --- | --- | --- | --- |",
    "| mlp, products | 500.00 | 50.0 % | 80 % | 10.0 % |",
    "| mlp, elementwise | 300.00 | 30.0 % | – | 30.0 % |",
    "| idle, or side by side | 195.00 | 19.5 % | – | 19.5 % |",
    "| all | 1000.00 | 100.0 % | 40 % | 60.0 % |",
  ]


def test_a_program_that_did_not_run_is_refused():
  text = """\
HloModule other

ENTRY %main (a: f32[2]) -> f32[2] {
  %a = f32[2]{0} parameter(0)
  ROOT %never_ran.1 = f32[2]{0} negate(%a)
}
"""

  class Other:
    def as_text(self):
      return text

  other = part.Part(
    "other", lambda count: jnp.ones(8) + count, 1, 1, lambda count: Other()
  )
  with pytest.raises(ValueError, match="names no operation"):
    op_profile.measure(other, 1)
