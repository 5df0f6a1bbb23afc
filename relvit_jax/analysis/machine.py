"""What a machine is, and what it really does: products and copies."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import importlib.util
import platform
import re
import resource
import sys
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import relvit_jax
from relvit_jax.analysis import timing
from relvit_jax.data import read_ahead
from relvit_jax.training import repeating

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
# Sides of square matrices; of several, since small ones do not fill a device
# and large ones do not fit its caches.
SIDES = {"cpu": (512, 1024, 2048, 4096), "other": (2048, 4096, 8192)}
# Far more than any cache holds: bytes.
_COPIED = 2**28
# A dispatch is to take at least so long that starting it is nothing: seconds.
_DISPATCH = 0.1


def describe() -> dict[str, Any]:
  """Device, versions and date, as plain data."""
  device = jax.devices()[0]
  on_cpu = device.platform == "cpu"
  return {
    "device": _processor() if on_cpu else device.device_kind,
    "platform": device.platform,
    "devices": jax.device_count(),
    "cores": read_ahead.cores(),
    "system": platform.system(),
    **versions(),
  }


def versions(*more: str) -> dict[str, str]:
  """Of Python and of the packages that a number depends on, and the date.

  Args:
    more: packages besides, that are left out where they are not installed.
  """
  return {
    "python": platform.python_version(),
    "relvit_jax": relvit_jax.__version__,
    **{name: importlib.metadata.version(name) for name in _PACKAGES},
    **{
      name: importlib.metadata.version(name)
      for name in more
      if importlib.util.find_spec(name)
    },
    "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
  }


def matrix_rate(
  dtype: Any, seconds: float | int, sides: tuple[int, ...] | None = None
) -> dict[str, Any]:
  """Operations a second in products of square matrices, on one device.

  Many products follow each other in one dispatch, each of what the one before
  gave. A multiply and an add are two operations; float32 has JAX's default
  precision, which on GPUs and TPUs is less than that of float32.

  Args:
    dtype: of the matrices.
    seconds: to spend on each side.
    sides: of the matrices; None for those of `SIDES`.

  Returns:
    "rate", the best of the medians, with its "side", "quartiles" and
    "by_side".
  """
  kind = "cpu" if jax.devices()[0].platform == "cpu" else "other"
  clocks, counts = {}, {}
  for side in sides or SIDES[kind]:
    clocks[side], counts[side] = products(dtype, side)
  named = {str(side): clock for side, clock in clocks.items()}
  found = timing.interleaved(named, seconds)
  rates = {
    side: 2 * side**3 / (found[str(side)] / counts[side]).median
    for side in clocks
  }
  best = max(rates, key=lambda side: rates[side])
  lower, upper = (found[str(best)] / counts[best]).quartiles
  return {
    "rate": rates[best],
    "quartiles": [2 * best**3 / upper, 2 * best**3 / lower],
    "side": best,
    "by_side": {str(side): rate for side, rate in rates.items()},
  }


def products(dtype: Any, side: int) -> tuple[timing.Clock, int]:
  """(a clock of products of square matrices, how many of them)."""
  # Singular values around 1: a chain of products neither grows nor vanishes.
  matrix, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((64, 64)))
  tiled = np.kron(np.eye(side // 64), matrix)
  return _chain(lambda x, fixed: fixed @ x, *[jnp.asarray(tiled, dtype)] * 2)


def copy_bandwidth(
  seconds: float | int, num_bytes: int = _COPIED
) -> dict[str, Any]:
  """Bytes a second that one device reads and writes; both ways count.

  An array of float32, far larger than the caches, is read, changed and
  written back, many times in one dispatch.
  """
  array = jnp.zeros((num_bytes // 4,), jnp.float32)
  clock, count = _chain(lambda x, one: x + one, array, jnp.float32(1))
  found = timing.interleaved({"copy": clock}, seconds)["copy"] / count
  lower, upper = found.quartiles
  return {
    "bandwidth": 2 * array.nbytes / found.median,
    "quartiles": [2 * array.nbytes / upper, 2 * array.nbytes / lower],
    "bytes": array.nbytes,
  }


def count(devices: Iterable[Any]) -> int:
  """How often devices can do what `matrix_rate` and `copy_bandwidth` measure.

  Each can, but CPU devices of one process share its cores, and with them what
  one alone was measured to do.
  """
  return len(
    {
      device.process_index if device.platform == "cpu" else device
      for device in devices
    }
  )


def forget_peak() -> None:
  """Begins `peak_resident_bytes` anew, where the system can do so: Linux."""
  with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
    file.write("5")


def peak_resident_bytes() -> int:
  """The most memory that this process had, or had since `forget_peak`."""
  try:
    with open("/proc/self/status", encoding="utf-8") as file:
      found = re.search(r"VmHWM:\s*(\d+) kB", file.read())
  except OSError:
    found = None
  if found:
    return 1024 * int(found[1])
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == "darwin" else 1024 * peak


def peak_device_bytes() -> int | None:
  """The most that a device ever held; None where it does not tell."""
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get("peak_bytes_in_use")


def _chain(
  function: Callable[[Array, Array], Array], start: Array, fixed: Array
) -> tuple[timing.Clock, int]:
  """(a clock of a long enough chain of calls in one dispatch, its length).

  What one dispatch leaves the next one takes over: on a CPU the first touch of
  new memory costs more than what is measured.
  """

  def many(x: Array, fixed: Array, count: Any) -> Array:
    return jax.lax.fori_loop(0, count, lambda _, x: function(x, fixed), x)

  compiled = repeating.jit(many, jax.devices()[0].platform, donate_argnums=0)
  array = jnp.array(start)

  def clock_of(count: int) -> timing.Clock:
    def call() -> Array:
      nonlocal array
      array = compiled(array, fixed, np.int32(count))
      return array

    return timing.clocked(call)

  clock_of(1)()
  count = 1
  while (took := clock_of(count)()) < _DISPATCH and count < 2**16:
    count *= min(16, max(2, round(1.2 * _DISPATCH / max(took, 1e-6))))
  return clock_of(count), count


def _processor() -> str:
  """Its name, as Linux tells it."""
  try:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
      found = re.search(r"model name\s*:\s*(.+)", file.read())
  except OSError:
    found = None
  return found[1].strip() if found else platform.machine()
