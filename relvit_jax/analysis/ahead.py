"""A training step compiled for TPUs that are not there."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from relvit_jax.analysis import hlo_traffic
from relvit_jax.data import views
from relvit_jax.training import partitioning
from relvit_jax.training import stage as stages

# What libtpu asks of a machine that has a TPU.
_ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_MIN_LOG_LEVEL": "3",
}


def missing() -> bool:
  """Whether the compiler, libtpu, is not installed."""
  return importlib.util.find_spec("libtpu") is None


def devices(topology: str, count: int | None = None) -> Sequence[Any]:
  """Chips of a topology, to make a mesh of.

  Args:
    topology: such as v5e:2x2, v6e:16x16 or v4:4x4x4.
    count: how many of them; None for all.

  Raises:
    ValueError: there is no such topology, or it has fewer chips.
  """
  from jax.experimental import topologies

  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  try:
    found = topologies.get_topology_desc(topology, platform="tpu").devices
  except Exception as error:  # XLA's own, without a class of its own.
    raise ValueError(
      f"topology={topology!r} cannot be had: {error}; such as v5e:2x2 can"
    ) from error
  if count is not None and not 0 < count <= len(found):
    raise ValueError(
      f"chips={count} must be from 1 to the {len(found)} of {topology}"
    )
  return found[:count]


def compile_step(stage: stages.Stage) -> Any:
  """The bare training step: images that are already shown, one batch."""
  program = jax.jit(
    stage.train_step(lambda keys, batch: views.Shown(batch["image"])),
    out_shardings=(
      jax.tree.map(lambda leaf: leaf.sharding, stage.state_shapes),
      partitioning.replicated(stage.mesh),
    ),
    donate_argnums=0,
  )
  return program.lower(stage.state_shapes, _batch(stage)).compile()


def report(stage: stages.Stage) -> dict[str, Any]:
  """What a chip does in a step, by the compiled program.

  Returns:
    "flops" and "accessed_bytes" of XLA's cost analysis, "main_memory_bytes" by
    operation (`hlo_traffic`), "argument_bytes", "temporary_bytes" and
    "compile_seconds", of a chip; and how many "images" it has.
  """
  began = time.perf_counter()
  program = compile_step(stage)
  took = time.perf_counter() - began
  cost, plan = program.cost_analysis(), program.memory_analysis()
  return {
    "images": stage.config.batch_size // stage.mesh.size,
    "flops": cost["flops"],
    "accessed_bytes": cost["bytes accessed"],
    "main_memory_bytes": hlo_traffic.main_memory_bytes(program.as_text()),
    "argument_bytes": plan.argument_size_in_bytes,
    "temporary_bytes": plan.temp_size_in_bytes,
    "compile_seconds": took,
  }


def _batch(stage: stages.Stage) -> dict[str, Any]:
  sharding = partitioning.batch_sharding(stage.mesh)
  count, side = stage.config.batch_size, stage.views.model_size

  def shape(dtype: Any, *lengths: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, *lengths), dtype, sharding=sharding)

  return {
    "image": shape(np.float32, side, side, 3),
    "label": shape(np.int32),
  }
