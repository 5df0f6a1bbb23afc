"""How fast a config trains here: its parts, beside what the machine can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from relvit_jax import config as configs
from relvit_jax import config_limits
from relvit_jax.analysis import machine, op_profile, parts, rival, timing
from relvit_jax.analysis.needs import Needs
from relvit_jax.data import outlines, read_ahead, splits
from relvit_jax.training import partitioning
from relvit_jax.training import stage as stages

# Of a data set that is not read: how many images stand for it at most.
_IMAGES, _BYTES = 20_000, 2**27
# Of a call, as a share of the time for a part; and steps that a call has at
# least, for its own cost to be a small part.
_CALL, _STEPS = 0.25, 4
_PRODUCTS = "products"


@runtime_checkable
class Measurable(Protocol):
  """What `part.Part` and `rival.Rival` have in common."""

  @property
  def name(self) -> str: ...

  @property
  def most(self) -> int: ...

  @property
  def least(self) -> int: ...

  @property
  def planned_bytes(self) -> int | None: ...

  def clock(self, count: int) -> timing.Clock:
    """Does it so many times and says how long all of them took."""
    ...


def synthetic(config: Any) -> splits.Split:
  """Random pixels of the shape that a config's data set has.

  No step's time depends on what it sees, but for decoding, which is left out.
  """
  data = config.data
  side = config_limits.NATIVE_SIZES.get(data.name) or data.stored_size
  count = max(1, min(_IMAGES, _BYTES // (3 * side**2)))
  known = outlines.PUBLISHED.get(data.name)
  random, classes = np.random.default_rng(0), known.classes if known else 10
  return splits.Split(
    name=f"random pixels, {count:,} × {side}×{side}",
    images=random.integers(0, 256, (count, side, side, 3), np.uint8),
    labels=random.integers(0, classes, count).astype(np.int32),
    class_names=tuple(map(str, range(classes))),
  )


def of_machine(dtypes: Iterable[Any], seconds: float | int) -> dict[str, Any]:
  """What the devices are, and how fast they multiply and copy."""
  return machine.describe() | {
    "products": {
      np.dtype(dtype).name: machine.matrix_rate(dtype, seconds)
      for dtype in dict.fromkeys(dtypes)
    },
    "copies": machine.copy_bandwidth(seconds),
  }


def dtypes() -> tuple[Any, ...]:
  """What products are measured in: an accelerator is made for bfloat16."""
  on_cpu = jax.devices()[0].platform == "cpu"
  return (jnp.float32,) if on_cpu else (jnp.float32, jnp.bfloat16)


def rivals_of(stage: stages.Stage) -> list[rival.Rival]:
  """PyTorch's step of the same model, eager and compiled; to be closed."""
  specification = rival.specification(
    stage.config,
    stage.views.model_size,
    len(stage.class_names),
    Needs(stage).dtype == jnp.bfloat16,
    partitioning.platform(stage.mesh),
    read_ahead.cores(),
  )
  return [rival.Rival(name, specification) for name in rival.NAMES]


def clocks_of(
  measured: Sequence[Measurable], seconds: float | int
) -> tuple[dict[str, timing.Clock], dict[str, int]]:
  """(clocks, steps of a call) by name; warmed up."""
  clocks, counts = {}, {}
  for part in measured:
    once = part.clock(part.least)
    once()
    took = once() / part.least
    count = round(_CALL * seconds / max(took, 1e-9))
    least = max(part.least, min(_STEPS, part.most))
    count = min(max(count, least), part.most)
    counts[part.name] = count - count % part.least
    clocks[part.name] = part.clock(counts[part.name])
  return clocks, counts


def measure(
  stage: stages.Stage,
  here: Mapping[str, Any],
  names: Sequence[str] = parts.NAMES,
  seconds: float | int = 5,
  rivals: Sequence[Measurable] = (),
  profile: bool = False,
) -> dict[str, Any]:
  """Times the parts of a stage, all in turn, and products of matrices too.

  These are the measure of the others, on a machine that may be faster in one
  minute than in the next.

  Args:
    stage: of the config.
    here: of `of_machine`, with the type that the model computes in.
    names: of `parts.NAMES`.
    seconds: for each part; long steps take three repetitions in any case.
    rivals: what else does a step of the same model.
    profile: whether to say where the time of the step goes.

  Returns:
    Plain data: what `benchmark_table` shows.
  """
  needs = Needs(stage)
  side = here["products"][needs.dtype.name]["side"]
  machines = machine.count(stage.mesh.devices.flat)
  bandwidth = here["copies"]["bandwidth"] * machines
  machine.forget_peak()
  with timing.Compilations() as all_compiled:
    maker = parts.Parts(stage)
    made = [maker.make(name) for name in names]
    clocks, counts = clocks_of([*made, *rivals], seconds)
    clocks[_PRODUCTS], counts[_PRODUCTS] = machine.products(needs.dtype, side)
    with timing.Compilations() as while_measuring:
      found = timing.interleaved(clocks, seconds)
  product = found[_PRODUCTS] / counts[_PRODUCTS]
  rate = 2 * side**3 / product.median * machines
  traced = None
  if profile:
    traced = op_profile.measure(maker.traced(), counts["step"])
  taken = {
    part: found[part.name] / counts[part.name] for part in (*made, *rivals)
  }
  rows = _rows(needs, taken, rate, bandwidth)
  for name, row in rows.items():
    row["steps_per_call"] = counts[name]
  return {
    "config": _described(stage),
    "parameters": needs.parameters,
    "dtype": needs.dtype.name,
    "flops_per_image": needs.flops("step") // needs.batch,
    "products_rate": rate,
    "products_quartiles": [
      2 * side**3 / took * machines for took in product.quartiles[::-1]
    ],
    "bound_seconds": needs.seconds("step", rate, bandwidth),
    "parts": rows,
    "profile": traced,
    "compilations": {
      "all": all_compiled.count,
      "while_measuring": while_measuring.count,
    },
    "peak_bytes": {
      "process": machine.peak_resident_bytes(),
      "device": machine.peak_device_bytes(),
    },
  }


def _rows(
  needs: Needs,
  taken: Mapping[Measurable, timing.Timing],
  rate: float,
  bandwidth: float,
) -> dict[str, Any]:
  """What is kept of each part, by the time of a step."""
  rows = {}
  for part, one in taken.items():
    flops = needs.flops(part.name)
    least = needs.seconds(part.name, rate, bandwidth)
    rows[part.name] = one.as_json() | {
      "images_per_second": needs.batch / one.median,
      "flops": flops,
      "share_of_rate": flops / one.median / rate if flops else None,
      "share_of_bound": least / one.median,
      "planned_bytes": part.planned_bytes,
    }
  if "step" in rows:
    for row in rows.values():
      row["share_of_step"] = row["median"] / rows["step"]["median"]
  return rows


def _described(stage: stages.Stage) -> dict[str, Any]:
  """What the numbers are of, in short."""
  config = stage.config
  chosen = configs.differences(config, _defaults(config))
  feed = type(stage.feed).__name__.lower()
  return {
    "stage": config.stage,
    "data": config.data.name,
    "tasks": list(config.tasks),
    "backbone": config.model.backbone,
    "image_size": stage.views.model_size,
    "patch_size": config.model.patch_size,
    "patches": list(stage.grid_size),
    "batch_size": config.batch_size,
    "devices": stage.mesh.size,
    "feed": feed,
    "differences": {key: ours for key, (ours, _) in chosen.items()},
  }


def _defaults(config: Any) -> Any:
  """What the stage has where nothing else is said."""
  return configs.from_dict({"stage": config.stage})
