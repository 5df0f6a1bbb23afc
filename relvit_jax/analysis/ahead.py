"""Training compiled for TPUs that are not there."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from relvit_jax.analysis import chips
from relvit_jax.training import stage as stages

# What libtpu asks of a machine that has a TPU; of which kind does not matter,
# as the topology says it.
_ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_MIN_LOG_LEVEL": "3",
  # A plan takes no chip from another, nor from a training beside it.
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


# (65.54G) exceeds available HBM (15.75G); Used 20.15G of 15.75G hbm.
_SIZES = re.compile(r"\b(\d+(?:\.\d+)?)([KMGT])\b")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class TooLargeError(ValueError):
  """A program needs more memory than a chip has.

  Attributes:
    needed: bytes, as far as the compiler came.
    available: bytes.
  """

  def __init__(self, needed: float | int, available: float | int):
    super().__init__(
      f"a chip would need {needed / 2**30:.1f} GiB, and has "
      f"{available / 2**30:.2f}"
    )
    self.needed, self.available = needed, available

  @classmethod
  def of_message(cls, message: str) -> TooLargeError | None:
    """What the compiler says when memory is short; None: it says else."""
    # A core's own memory does not grow with the batch.
    if "RESOURCE_EXHAUSTED" not in message or "hbm" not in message.lower():
      return None
    sizes = [
      float(number) * _UNITS[unit] for number, unit in _SIZES.findall(message)
    ]
    return cls(*sizes[:2]) if len(sizes) > 1 else None


def missing() -> bool:
  """Whether the compiler, libtpu, is not installed."""
  return importlib.util.find_spec("libtpu") is None


def devices(asked: chips.Slice) -> Sequence[Any]:
  """The chips of a slice, to make a mesh of.

  Raises:
    ValueError: there is no slice of this shape.
  """
  from jax.experimental import topologies

  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  bounds: dict[str, Any] = {"chips_per_host_bounds": (*asked.host, 1)[:3]}
  if asked.name.startswith("v4:"):
    # Both cores of a chip are one device, as they are in training.
    bounds["chip_config_name"] = "megacore"
  try:
    return topologies.get_topology_desc(
      asked.name, platform="tpu", **bounds
    ).devices
  except Exception as error:  # XLA's own, without a class of its own.
    hint = "; it is made of hosts of 2×2 chips"
    raise ValueError(
      f"topology={asked.name!r} cannot be had: {error}"
      f"{hint if 'INVALID_ARGUMENT' in str(error) else ''}"
    ) from error


def compile_dispatch(stage: stages.Stage) -> Any:
  """What training runs again and again: batches drawn, shown and learnt.

  Raises:
    TooLargeError: for a chip.
  """
  lowered = stage.train_steps.lower(
    stage.state_shapes,
    stage.feed.outline(),
    jax.ShapeDtypeStruct((), np.int32),
  )
  try:
    return lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if found := TooLargeError.of_message(str(error)):
      raise found from error
    raise
