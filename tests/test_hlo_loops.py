"""How often a step runs what is in a dispatch."""

import jax
import jax.numpy as jnp

from relvit_jax.analysis import hlo_loops, hlo_text


def runs(function, *arguments):
  text = jax.jit(function).lower(*arguments).compile().as_text()
  program = hlo_text.parse(text)
  return program, hlo_loops.Runs(program)


def times(function, *arguments):
  """How often a step, and a dispatch, sorts."""
  program, found = runs(function, *arguments)

  def count(counted):
    return sum(
      number
      for name, number in counted.items()
      for line in program.computations[name].values()
      if line.operation == "sort"
    )

  return count(found.step), count(found.dispatch)


X = jnp.ones((30, 30))


def inner(x):
  return jax.lax.scan(lambda c, _: (jnp.sort(c) @ c, None), x, None, 7)[0]


def test_without_a_loop_over_steps_all_is_the_step():
  assert times(inner, X) == (7, 0)


def test_a_step_is_a_turn_of_the_loop_that_does_not_say_how_often():
  def steps(x, number):
    return jax.lax.fori_loop(0, number, lambda i, c: inner(c), x)

  assert times(steps, X, 3) == (7, 0)


def test_what_stands_before_the_steps_runs_once_a_dispatch():
  def steps(x, number):
    x = inner(x)
    return jax.lax.fori_loop(0, number, lambda i, c: c @ c, x)

  assert times(steps, X, 3) == (0, 7)


def test_of_several_loops_the_longest_is_that_over_steps():
  def steps(x, number):
    x = jax.lax.fori_loop(0, number, lambda i, c: c @ c, x)
    return jax.lax.fori_loop(0, number, lambda i, c: inner(c + 1), x)

  assert times(steps, X, 3) == (7, 0)
  assert runs(steps, X, 3)[1].unknown == 1


# A TPU's program says a limit in the condition alone.
LOOP = """\
HloModule example

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state = (s32[]{:T(128)}, f32[8]{0}) parameter(0)
  ROOT %next = (s32[]{:T(128)}, f32[8]{0}) fusion(%state), kind=kLoop, calls=%f
}

%condition (state: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(96)
  %state = (s32[]{:T(128)}, f32[8]{0}) parameter(0)
  %count = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %less = pred[]{:T(512)} compare(%count, %limit), direction=LT
}

ENTRY %main (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state = (s32[]{:T(128)}, f32[8]{0}) parameter(0)
  ROOT %done = (s32[]{:T(128)}, f32[8]{0}) while(%state), condition=%condition, body=%body
}
"""  # noqa: E501


def test_the_limit_of_a_loop_is_read_from_its_condition():
  assert hlo_loops.Runs(hlo_text.parse(LOOP)).step == {"main": 1, "body": 96}


def test_or_from_what_it_is_given():
  given = LOOP.replace("constant(96)", "get-tuple-element(%state), index=0")
  given = given.replace(
    "ROOT %done = (s32[]{:T(128)}, f32[8]{0}) while(%state)",
    "%limit = s32[]{:T(128)} constant(5)\n"
    "  %start = (s32[]{:T(128)}, f32[8]{0}) tuple(%limit, %state)\n"
    "  ROOT %done = (s32[]{:T(128)}, f32[8]{0}) while(%start)",
  )
  assert hlo_loops.Runs(hlo_text.parse(given)).step == {"main": 1, "body": 5}
