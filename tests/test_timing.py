"""Medians of interleaved repetitions, and what is compiled meanwhile."""

import jax
import jax.numpy as jnp
import pytest

from relvit_jax.analysis import timing


def scripted(seconds, log=None, name=""):
  """A clock that pretends."""

  def clock():
    if log is not None:
      log.append(name)
    return seconds

  return clock


def test_the_middle_half_of_the_repetitions():
  measured = timing.Timing((5.0, 1.0, 2.0, 3.0, 4.0))
  assert measured.median == 3
  assert measured.quartiles == (2, 4)
  assert (measured / 2).samples == (2.5, 0.5, 1, 1.5, 2)
  assert measured.as_json() == {
    "median": 3.0,
    "lower_quartile": 2.0,
    "upper_quartile": 4.0,
    "repetitions": 5,
  }


def test_nothing_measured_is_no_timing():
  with pytest.raises(ValueError, match="samples is empty"):
    timing.Timing(())


def test_all_have_a_turn_in_every_round():
  log = []
  timing.interleaved(
    {"a": scripted(1, log, "a"), "b": scripted(0.5, log, "b")}, seconds=5
  )
  assert "".join(log) == "aabbb" * 5


@pytest.mark.parametrize(
  ("takes", "repetitions"), [(0.125, 40), (1, 5), (2.4, 5), (2.6, 3), (100, 3)]
)
def test_long_work_is_repeated_less_often(takes, repetitions):
  found = timing.interleaved({"it": scripted(takes)}, seconds=5)
  assert len(found["it"].samples) == repetitions


def test_no_time_is_refused():
  with pytest.raises(ValueError, match="seconds=0 must be above 0"):
    timing.interleaved({}, seconds=0)


def test_only_a_new_program_is_a_compilation():
  double = jax.jit(lambda x: 2 * x)
  array = jnp.arange(3)
  with timing.Compilations() as before:
    double(array)
  with timing.Compilations() as after:
    double(array)
  assert (before.count, after.count) == (1, 0)
  jax.jit(lambda x: 3 * x)(array)
  assert after.count == 0


def test_a_clock_waits_for_the_arrays():
  done = []

  class Late:
    def block_until_ready(self):
      done.append(True)
      return self

  assert timing.clocked(lambda: Late())() >= 0
  assert done
