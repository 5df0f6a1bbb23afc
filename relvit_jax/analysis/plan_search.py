"""Which batches and meshes of a config fit chips, and which is the fastest."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from relvit_jax import config_checks
from relvit_jax.analysis import ahead, chips
from relvit_jax.analysis.plan import Planned
from relvit_jax.training import datasets

# Of the batch that should just fit; and how many are tried before the least.
_CAREFUL, _TRIES = 0.95, 4


def largest_batch(
  config: Any,
  where: chips.Slice,
  devices: Sequence[Any],
  refused: ahead.TooLargeError,
) -> int | None:
  """A batch below the config's that fits, near the largest.

  The memory of a step grows with its batch: how much of it is left over says
  where to look, and the compiler whether it fits.

  Args:
    config: whose batch does not.
    where: the chips.
    devices: the same.
    refused: what the compiler said of the config's batch.

  Returns:
    None: not even the least batch that all chips share fits.
  """
  # Even, as images may be mixed in pairs.
  least = where.size * (1 + where.size % 2)
  batch, before = config.batch_size, None
  for left in reversed(range(_TRIES + 1)):
    room = _room(batch, refused, before)
    before = batch, refused.needed
    smaller = min(int(_CAREFUL * room), batch - least) // least * least
    batch = max(least, smaller) if left else least
    if before[0] <= least:
      return None
    try:
      Planned(changed(config, batch_size=batch), where, devices).report()
    except ahead.TooLargeError as error:
      refused = error
    else:
      return batch
  return None


def _room(
  batch: int,
  refused: ahead.TooLargeError,
  before: tuple[int, float | int] | None,
) -> float:
  """The batch that would just fit, on a line through what was needed.

  Through nothing, where one point is known; through the batch before, where
  there are two.
  """
  slope, fixed = refused.needed / batch, 0.0
  if before and before[0] != batch and before[1] > refused.needed:
    slope = (before[1] - refused.needed) / (before[0] - batch)
    fixed = refused.needed - slope * batch
  return max(0.0, (refused.available - fixed) / slope)


def sweep(
  config: Any,
  where: chips.Slice,
  devices: Sequence[Any],
  batch_sizes: Sequence[int],
  fsdps: Sequence[int],
) -> Iterator[dict[str, Any]]:
  """Plans of all these batches and meshes, or why they are refused.

  A batch above one that does not fit is not tried.

  Yields:
    {"batch_size", "fsdp", and "plan" or "refused"}.

  Raises:
    ValueError: the data set cannot be planned with.
  """
  datasets.outline(config, where.chip.memory)
  for fsdp in fsdps:
    full = False
    for batch_size in sorted(batch_sizes):
      tried = {"batch_size": batch_size, "fsdp": fsdp}
      if full:
        yield tried | {"refused": "more than what does not fit"}
        continue
      try:
        asked = changed(config, batch_size=batch_size, fsdp=fsdp)
        planned = Planned(asked, where, devices)
      except ValueError as error:
        yield tried | {"refused": str(error)}
        continue
      try:
        yield tried | {"plan": planned.report()}
      except ahead.TooLargeError as error:
        full = True
        yield tried | {"refused": str(error)}


def fastest(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
  """The row of a sweep with the most images a second; None: none fits."""
  fitting = [row for row in rows if "plan" in row]
  return min(
    fitting,
    key=lambda row: row["plan"]["seconds"]["step"] / row["batch_size"],
    default=None,
  )


def changed(
  config: Any, batch_size: int | None = None, fsdp: int | None = None
) -> Any:
  """A copy of a config with another batch or mesh.

  Raises:
    ValueError: the config cannot have it.
  """
  made = copy.deepcopy(config)
  if batch_size is not None:
    made.batch_size = batch_size
  if fsdp is not None:
    made.mesh.fsdp = fsdp
  config_checks.check(made, here=False)
  return made
