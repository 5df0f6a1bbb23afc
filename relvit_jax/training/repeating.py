"""Compiles what a dispatch does as often as it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def is_fixed(platform: str) -> bool:
  """Whether each number of turns has a program of its own."""
  return platform == "gpu"


def jit(function: Callable[..., Any], platform: str, **keywords: Any) -> Any:
  """`jax.jit` of a function whose last argument says how often its loop turns.

  One program does it any number of times. But on a GPU each number has one of
  its own: of a loop whose length XLA does not know when it compiles, the host
  reads the condition after every turn, and stands between two steps.

  Args:
    function: takes a np.int32 last, the length of a `jax.lax.fori_loop`.
    platform: of the devices: cpu, gpu or tpu.
    **keywords: of `jax.jit`.
  """
  if is_fixed(platform):
    keywords["static_argnums"] = -1
  return jax.jit(function, **keywords)
