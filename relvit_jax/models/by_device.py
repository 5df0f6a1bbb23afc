"""A kernel of ours over the devices of a mesh: XLA cannot split one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array


def call(
  kernel: Callable[..., Any],
  platform: str,
  *arrays: Array,
  whole: Sequence[int] = (),
) -> Any:
  """What the kernel makes of the arrays, each device of the rows that it has.

  Traced in the context of a mesh (`partitioning.on_mesh`), rows are split over
  all its axes; without one there is one device.

  Args:
    kernel: (whether to interpret it, *arrays) → arrays with rows first.
    platform: that it is compiled for, such as tpu or cuda; on all others it is
      interpreted.
    *arrays: with rows first.
    whole: which of them every device has whole, by place.
  """

  def here(*arrays: Array) -> Any:
    return jax.lax.platform_dependent(
      *arrays,
      default=functools.partial(kernel, True),
      **{platform: functools.partial(kernel, False)},
    )

  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return here(*arrays)
  rows = P(mesh.axis_names)
  specs = tuple(P() if i in whole else rows for i in range(len(arrays)))
  return jax.shard_map(here, in_specs=specs, out_specs=rows, check_vma=False)(
    *arrays
  )
