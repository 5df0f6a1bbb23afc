"""Which accelerators a machine shows, told before JAX is imported."""

from __future__ import annotations

import glob
import importlib.util
import os
from collections.abc import Mapping

# What Linux calls GPUs, those of a Windows that it runs on, and TPUs.
_DEVICES = (
  "/dev/nvidia[0-9]*",
  "/dev/kfd",
  "/dev/dxg",
  "/dev/accel*",
  "/dev/vfio/*",
)
_LIBTPU = "libtpu"


def are_there() -> bool:
  """Whether Linux names a device that might compute instead of the CPU."""
  return any(map(glob.glob, _DEVICES))


def leave_libtpu_out() -> None:
  """Keeps JAX from starting libtpu where `relvit plan` is all it is there for.

  Without a TPU the library prints lines of its own as JAX starts. Worse, while
  a trace is taken its profiler keeps one core busy: of two, half of what a
  step has, which took 345 ms instead of 200 (JAX 0.10.2, libtpu 0.0.42.1).
  What compiles for TPUs that are not there loads it all the same.
  """
  found = importlib.util.find_spec(_LIBTPU) is not None
  os.environ.update(environment(os.environ, found, are_there()))


def environment(
  given: Mapping[str, str], has_libtpu: bool, has_accelerator: bool
) -> dict[str, str]:
  """What to change of the environment; empty where nothing is in the way.

  Args:
    given: the environment; who set JAX_PLATFORMS in it has chosen.
    has_libtpu: whether JAX would find the library.
    has_accelerator: as of `are_there`.
  """
  if has_libtpu and not has_accelerator and "JAX_PLATFORMS" not in given:
    return {"JAX_PLATFORMS": "cpu"}
  return {}
