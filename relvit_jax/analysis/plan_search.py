"""Which batches and meshes of a config fit chips, and which is the fastest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from relvit_jax.analysis import ahead, chips
from relvit_jax.analysis.plan import Planned

# Of the batch that should just fit; and how often it is tried with less.
_CAREFUL, _TRIES = 0.95, 4


def largest_batch(
  config: Any,
  where: chips.Slice,
  devices: Sequence[Any],
  refused: ahead.TooLargeError,
) -> int | None:
  """A batch below the config's that fits, near the largest; None: none does.

  The memory of a step grows with its batch: how much of it is left over says
  where to look, and the compiler whether it fits.

  Args:
    config: whose batch does not.
    where: the chips.
    devices: the same.
    refused: what the compiler said of the config's batch.
  """
  batch = config.batch_size
  for _ in range(_TRIES):
    share = _CAREFUL * refused.available / refused.needed
    batch = int(batch * share) // where.size * where.size
    if batch < where.size:
      return None
    try:
      Planned(changed(config, batch_size=batch), where, devices).report()
    except ahead.TooLargeError as error:
      refused = error
    else:
      return batch
  return None


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
  """
  for fsdp in fsdps:
    full = False
    for batch_size in sorted(batch_sizes):
      tried = {"batch_size": batch_size, "fsdp": fsdp}
      if full:
        yield tried | {"refused": "more than what does not fit"}
        continue
      asked = changed(config, batch_size=batch_size, fsdp=fsdp)
      try:
        yield tried | {"plan": Planned(asked, where, devices).report()}
      except ahead.TooLargeError as error:
        full = True
        yield tried | {"refused": str(error)}
      except ValueError as error:
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
  """A copy of a config with another batch or mesh."""
  made = config.copy_and_resolve_references()
  if batch_size is not None:
    made.batch_size = batch_size
  if fsdp is not None:
    made.mesh.fsdp = fsdp
  return made
