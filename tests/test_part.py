"""What is done any number of times in one dispatch."""

import jax
import jax.numpy as jnp
import pytest

from relvit_jax.analysis import part


@pytest.mark.parametrize(
  ("count", "expected"), [(45, [20, 20, 5]), (20, [20]), (3, [3])]
)
def test_dispatches(count, expected):
  assert list(part.dispatches(count, 20)) == expected


def add_up(step, total, seed, count):
  """One more for each step, and the numbers that tell calls apart."""
  total = jax.lax.fori_loop(0, count, lambda i, x: x + step, total["sum"])
  return {"sum": total, "seed": seed}


def test_what_is_handed_on_goes_from_call_to_call():
  start = {"sum": jnp.zeros(3), "seed": jnp.int32(0)}
  made = part.carried("sum", add_up, (jnp.float32(2),), start)
  assert made.call(4)["sum"].tolist() == [8, 8, 8]
  again = made.call(1)
  assert again["sum"].tolist() == [10, 10, 10]
  assert again["seed"] == 4
  # It is not the first array that was overwritten.
  assert start["sum"].tolist() == [0, 0, 0]


def test_the_plan_counts_what_is_overwritten_once():
  start = {"sum": jnp.zeros(2**20), "seed": jnp.int32(0)}
  made = part.carried("sum", add_up, (jnp.float32(2),), start)
  assert 4 * 2**20 <= made.planned_bytes < 1.1 * 4 * 2**20
  assert part.Part("host", lambda count: None, 1).planned_bytes is None


def test_its_clock_times_a_call():
  counts = []
  made = part.Part("it", counts.append, 10)
  assert made.clock(7)() >= 0
  assert counts == [7]
