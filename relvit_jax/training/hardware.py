"""What a config leaves open because it depends on the device, and no number.

But for rounding: bfloat16 keeps eight bits where float32 keeps 24.
"""

from __future__ import annotations

import re
from typing import Any

import jax.numpy as jnp

from relvit_jax.models import (
  attention_kernel,
  attention_triton,
  flops,
  row_tiles,
  variants,
)

# How long a dispatch is to last: long enough for what it costs by itself to be
# nothing, short enough for a run to stop soon when it is told to. Seconds.
_DISPATCH = 1.5
_MOST_STEPS = 200
# Operations a second that a step of a small vision transformer reaches at
# least: of two cores of a CPU, 60 to 110 10⁹ each on AMD EPYC of 2022 and 2024,
# of an accelerator a tenth of what an H100's matrix units do, of an early GPU
# half of a T4's float32. More cores have shorter dispatches; a number of cores
# would be another for every machine that goes on with a run.
_RATES = {
  "cpu": 120e9,
  "gpu": 80e12,
  "amd gpu": 80e12,
  "tpu": 80e12,
  "early gpu": 4e12,
}
# What attention is computed by where nothing is said and nothing is in the way.
_ATTENTIONS = {"cpu": "products", "tpu": "kernel", "gpu": "triton"}


def kind_of(device: Any) -> str:
  """cpu, tpu, gpu, amd gpu, or early gpu: one without units for bfloat16.

  Those are NVIDIA's before compute capability 8, such as T4 and V100.
  """
  if device.platform != "gpu":
    return device.platform
  # AMD's are called otherwise, such as gfx90a.
  found = re.match(r"(\d+)\.", str(getattr(device, "compute_capability", "")))
  if not found:
    return "amd gpu"
  return "early gpu" if int(found[1]) < 8 else "gpu"


def choices(config: Any, image_size: int, kind: str) -> dict[str, Any]:
  """Keywords of `relvit.create_model`: how the model of a config is computed.

  Args:
    config: with the keys of `configs/common.py`.
    image_size: pixels a side of what the model is shown.
    kind: of the devices, as `kind_of` says.

  Raises:
    ValueError: the config asks for attention that the device does not have, or
      that cannot do this.
  """
  model = config.model
  family = variants.FAMILIES[variants.family_of(model.backbone)]
  has_bfloat16 = kind in ("gpu", "amd gpu", "tpu")
  name = model.dtype or ("bfloat16" if has_bfloat16 else "float32")
  made: dict[str, Any] = {"dtype": jnp.dtype(name)}
  made["recompute_gelu"] = (
    kind == "tpu" if model.recompute_gelu is None else model.recompute_gelu
  )
  made["block_kernels"] = _block_kernels(model.block_kernels, kind, name)
  if "attention" not in family.words:
    return made
  asked, itemsize = model.attention, made["dtype"].itemsize
  best = asked or _ATTENTIONS.get(kind, "einsum")
  obstacle = _obstacle(best, config, image_size, itemsize)
  if asked and obstacle:
    raise ValueError(f"model.attention={asked!r} must be 'einsum': {obstacle}")
  if asked == "cudnn" and (kind != "gpu" or name != "bfloat16"):
    raise ValueError(
      "model.attention='cudnn' needs bfloat16 and a GPU that has it, and this "
      f"is {name} on {kind}; None takes what suits it"
    )
  made["attention"] = "einsum" if obstacle else best
  return made


def _block_kernels(asked: bool | None, kind: str, dtype: str) -> bool:
  obstacle = row_tiles.obstacle()
  if asked and obstacle:
    raise ValueError(f"model.block_kernels=True must be False: {obstacle}")
  if asked is None:
    return kind == "gpu" and dtype == "bfloat16" and not obstacle
  return asked


def _obstacle(name: str, config: Any, image_size: int, itemsize: int) -> str:
  """Why this attention is none for the model; empty where it is one."""
  model = config.model
  if name not in _ATTENTIONS.values():
    return ""
  if model.attention_mask or model.attention_dropout_rate:
    return "it has neither a mask nor dropout"
  if name == "products":
    return ""
  cost = flops.per_image(
    model.backbone, image_size, model.patch_size, ("relation",), **_sizes(model)
  )
  sizes = variants.sizes_of(model.backbone) | _sizes(model)
  shape = cost.tokens, sizes["embed_dim"], sizes["num_heads"]
  if name == "triton":
    float32 = "it takes bfloat16 alone" if itemsize > 2 else ""
    return float32 or attention_triton.obstacle(*shape)
  return attention_kernel.obstacle(*shape, itemsize)


def steps_per_dispatch(
  config: Any, image_size: int, num_classes: int, kind: str, devices: int
) -> int:
  """Steps that take about a second and a half, by their operations.

  By formula and not by the clock: where dispatches begin is a function of the
  config and the kind of device, so that a run that was stopped goes on with the
  dispatches that it would have had.

  Args:
    config: with the keys of `configs/common.py`.
    image_size: pixels a side of what the model is shown.
    num_classes: of the labels.
    kind: of the devices.
    devices: that share a batch.
  """
  if config.steps_per_dispatch is not None:
    return config.steps_per_dispatch
  cost = flops.per_image(
    config.model.backbone,
    image_size,
    config.model.patch_size,
    tuple(config.tasks),
    num_classes or None,
    **_sizes(config.model),
  )
  # A CPU is one, however many devices it plays.
  rate = _RATES[kind] * (1 if kind == "cpu" else devices)
  seconds = config.batch_size * cost.total.training / rate
  return max(1, min(_MOST_STEPS, int(_DISPATCH / seconds)))


def _sizes(model: Any) -> dict[str, Any]:
  """What a config gives a model beside its name and its patches."""
  return {
    name: value
    for name, value in model.items()
    if value is not None and name not in ("backbone", "patch_size")
  }
