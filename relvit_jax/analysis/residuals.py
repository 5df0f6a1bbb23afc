"""What the backward pass keeps of the forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def saved_bytes(function: Callable[..., Any], params: Any, *rest: Any) -> int:
  """Bytes that `jax.grad(function)` keeps for its backward pass.

  All intermediate arrays that the gradient with respect to `params` reads and
  that depend on `rest`, each once: neither parameters nor copies of them in
  another type, nor constants. Nothing is computed nor compiled.

  It is what JAX hands from one pass to the other, not what a step needs at its
  peak: XLA computes cheap ones again, and needs room for what it works on. For
  a CPU, at 64 float32 images, it plans 1.12 times as much for ViT-S/4 at 32
  pixels, 1.14 for Swin-T and 1.22 for T2T-ViT-14 at 224 (JAX 0.10.2).

  Args:
    function: (params, *rest) → a scalar.
    params: arrays or shapes.
    *rest: the same, such as a batch of images.
  """

  def backward(params: Any, *rest: Any) -> Any:
    return jax.vjp(lambda params: function(params, *rest), params)[1]

  program = jax.make_jaxpr(backward)(params, *rest).jaxpr
  given = set(program.invars[len(jax.tree.leaves(params)) :])
  kept = _following(program, given) & _variables(program.outvars) - given
  return sum(
    math.prod(array.aval.shape) * array.aval.dtype.itemsize for array in kept
  )


def _following(program: Any, given: set[Any]) -> set[Any]:
  """Variables of a program that follow from some of its inputs."""
  found = set(given)
  for equation in program.eqns:
    if equation.primitive.name == "jit":
      inner = equation.params["jaxpr"].jaxpr
      # An output of it need not follow from all of its inputs.
      pairs = zip(inner.invars, equation.invars, strict=True)
      inside = _following(
        inner, {own for own, outer in pairs if _in(outer, found)}
      )
      pairs = zip(inner.outvars, equation.outvars, strict=True)
      found.update(outer for own, outer in pairs if _in(own, inside))
    elif not found.isdisjoint(_variables(equation.invars)):
      found.update(equation.outvars)
  return found


def _in(atom: Any, variables: set[Any]) -> bool:
  """Whether it is one of them; a literal is none, and cannot be hashed."""
  return isinstance(atom, core.Var) and atom in variables


def _variables(atoms: Any) -> set[Any]:
  return {atom for atom in atoms if isinstance(atom, core.Var)}
