"""Memory that is kept, in large pages, for what trains on a Linux CPU.

Each dispatch of XLA takes the memory of its temporaries anew, 1.2 GB for
ViT-S/4 in batches of 32, and gives it back. Touching it again page by page
costs as much time as a tenth to a half of a step. The C library keeps it, and
asks for pages of 2 MiB, only if told so before the process starts, so a command
starts itself once more. Two cores of an AMD EPYC (Zen 5), JAX 0.10.2, one step
a dispatch, 2026-11-23: ViT-S/4 1,136 ms without and 878 ms with; 12 steps and
two evaluations, from the shell, 54 s and 42 s, in 2.5 GB either way. Large
pages alone are not enough: after a while the kernel has none left to give.
"""

from __future__ import annotations

import glob
import os
import pathlib
import sys
from collections.abc import Mapping

_VARIABLE = "GLIBC_TUNABLES"
# One arena, which alone can keep large pieces; nothing is mapped apart or given
# back to the system.
_TUNABLES = (
  "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:"
  f"glibc.malloc.trim_threshold={2**40}"
)
_SETTING = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
# What Linux calls GPUs and TPUs.
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel*", "/dev/vfio/*")


def start_with() -> None:
  """Starts this process again, once, where it helps and is not yet so."""
  changed = environment(
    os.environ,
    _SETTING.read_text(encoding="ascii") if _SETTING.exists() else "",
    any(map(glob.glob, _ACCELERATORS)),
  )
  if changed:
    sys.stdout.flush()
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **changed})


def environment(
  given: Mapping[str, str], setting: str, has_accelerator: bool
) -> dict[str, str]:
  """What to change of the environment; empty where a process may go on.

  Args:
    given: the environment.
    setting: of the kernel: "always [madvise] never" waits to be asked; other
      choices, and "" where there is none, cannot be changed by asking.
    has_accelerator: whether it computes, not the CPU.
  """
  on_cpu = given.get("JAX_PLATFORMS", "") == "cpu" or not has_accelerator
  # Who set tunables has chosen; it may have been this function.
  if on_cpu and "[madvise]" in setting and _VARIABLE not in given:
    return {_VARIABLE: _TUNABLES}
  return {}
