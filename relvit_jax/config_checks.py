"""What a config may say, checked before JAX is imported or a file is read."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Iterator
from typing import Any

from relvit_jax import config as configs
from relvit_jax import config_limits, config_model
from relvit_jax.models import variants


class ConfigError(ValueError):
  """A config says what cannot be; the message has every such key."""


def check(config: Any, here: bool = True) -> None:
  """Raises unless the config can be run, on some number of devices.

  Args:
    here: whether on this machine: the files that it names are then looked for.

  Raises:
    ConfigError: with a line for each key: its name, its value and what would
      be right.
  """
  problems = list(_structure(config))
  if not problems:
    problems = list(_values(config))
  if not problems:
    for rule in (*RULES, *RULES_HERE) if here else RULES:
      problems += rule(config)
  if problems:
    raise ConfigError("\n".join(problems))


def _structure(config: Any) -> Iterator[str]:
  """Unknown and missing keys, and values of a wrong type."""
  from relvit_jax.configs import (  # pyright: ignore[reportMissingImports]
    common,
  )

  known = configs.kinds(common.get_config(common.Arguments()))
  given = configs.kinds(config)
  for key in given:
    if key not in known:
      yield configs.unknown(key, known)
  for key, kind in known.items():
    value = _get(config, key) if key in given else None
    if key not in given:
      yield f"{key} is missing; configs/common.py says what it is"
    elif value is not None and not configs.fits(value, kind):
      yield f"{key}={value!r} must be {configs.kind_in_words(kind)}"
    elif value is None and key not in config_limits.OPTIONAL:
      yield f"{key}=None must be {configs.kind_in_words(kind)}"


def _values(config: Any) -> Iterator[str]:
  """Values that are out of range by themselves."""
  for key, (holds, words) in config_limits.LIMITS.items():
    value = _get(config, key)
    if value is not None and not holds(value):
      yield f"{key}={value!r} must be {words}"
  try:
    variants.sizes_of(config.model.backbone)
  except ValueError as error:
    yield f"model.{error}"


def _length(config: Any) -> Iterator[str]:
  if (config.num_steps is None) == (config.num_epochs is None):
    yield (
      f"num_steps={config.num_steps} and num_epochs={config.num_epochs}: "
      "exactly one must be given, the other None"
    )


def _tasks(config: Any) -> Iterator[str]:
  tasks = tuple(config.tasks)
  if (
    not tasks
    or len(set(tasks)) < len(tasks)
    or set(tasks) - {*variants.ALL_TASKS}
  ):
    yield (
      f"tasks={tasks!r} must name at least one of "
      f"{', '.join(variants.ALL_TASKS)}, each once"
    )
  elif not any(config.loss.weights[task] for task in tasks):
    yield (
      f"loss.weights are 0 for all of tasks={tasks!r}: nothing would be "
      "learned; at least one must be above 0"
    )


def _data(config: Any) -> Iterator[str]:
  data = config.data
  for key, name in (("folder", "folder"), ("classes", "imagenet100")):
    given = data[key]
    if given is not None and data.name != name:
      yield f"data.{key}={given!r} is for data.name={name}, not {data.name}"
  if (data.mean is None) != (data.std is None):
    yield (
      f"data.mean={data.mean} and data.std={data.std}: both must be given, or "
      "neither"
    )
  native = config_limits.NATIVE_SIZES.get(data.name)
  if native and data.stored_size is not None:
    yield (
      f"data.stored_size={data.stored_size} must be None: all images of "
      f"{data.name} have {native}×{native} pixels"
    )
  elif data.stored_size is None and not native:
    yield (
      f"data.stored_size=None: the images of {data.name} have many sizes; it "
      "must be the side, in pixels, of the square that they are kept at"
    )


def _view(config: Any) -> Iterator[str]:
  """How stored images become those that the model sees."""
  data, crop = config.data, config.augment.crop
  stored = config_limits.NATIVE_SIZES.get(data.name, data.stored_size)
  if crop == "pad" and stored and data.image_size != stored:
    yield (
      f"augment.crop='pad' keeps the {stored} pixels of {data.name}: "
      f"data.image_size={data.image_size} needs augment.crop='resized' or "
      "'none'"
    )
  if crop == "pad" and config.augment.crop_padding >= data.image_size:
    yield (
      f"augment.crop_padding={config.augment.crop_padding} must be below "
      f"data.image_size={data.image_size}"
    )


def _decoding(config: Any) -> Iterator[str]:
  """What must hold for crops to be cut by who decodes images."""
  data = config.data
  if not data.crop_at_decode:
    return
  needed = "data.crop_at_decode=True needs"
  if data.feed != "streaming":
    yield (
      f"{needed} data.feed='streaming', not {data.feed!r}: what lies on a "
      "device was decoded before"
    )
  if config.augment.crop != "resized":
    yield (
      f"{needed} augment.crop='resized', not {config.augment.crop!r}: nothing "
      "else is cut out of a larger image"
    )
  native = config_limits.NATIVE_SIZES.get(data.name)
  if native:
    yield (
      f"{needed} images of many sizes: those of {data.name} have "
      f"{native}×{native} pixels"
    )


def _mixing(config: Any) -> Iterator[str]:
  augment = config.augment
  mixes = augment.mix_probability and (
    augment.mixup_alpha or augment.cutmix_alpha
  )
  if mixes and config.batch_size % 2:
    yield (
      f"batch_size={config.batch_size} must be even: "
      f"augment.mixup_alpha={augment.mixup_alpha} and augment.cutmix_alpha="
      f"{augment.cutmix_alpha} mix images in pairs"
    )
  if augment.repeats > max(1, config.batch_size // 2):
    yield (
      f"augment.repeats={augment.repeats} must be at most half of batch_size="
      f"{config.batch_size}"
    )


def _optimizer(config: Any) -> Iterator[str]:
  settings = config.optimizer
  if settings.schedule == "paper" and settings.warmup_share != 0.1:
    yield (
      f"optimizer.warmup_share={settings.warmup_share} needs "
      "optimizer.schedule='cosine': the paper's has 0.1"
    )
  if settings.schedule == "paper" and settings.warmup_lr:
    yield (
      f"optimizer.warmup_lr={settings.warmup_lr} needs "
      "optimizer.schedule='cosine': the paper's begins at 0"
    )


def _drloc(config: Any) -> Iterator[str]:
  asked = config.loss.drloc
  if asked.normalise_targets and asked.mode != "l1":
    yield (
      f"loss.drloc.normalise_targets=True needs loss.drloc.mode='l1': the "
      f"targets of {asked.mode!r} are classes"
    )


def _files(config: Any) -> Iterator[str]:
  """What the data are read from."""
  data = config.data
  for key, name in (("folder", "folder"), ("classes", "imagenet100")):
    given = data[key]
    if given is None and data.name == name:
      yield f"data.{key}=None: data.name={name} needs it, a path"
    elif given is not None and not pathlib.Path(given).exists():
      yield f"data.{key}={given!r} does not exist; it must be a path"


def _logs(config: Any) -> Iterator[str]:
  if config.logs.wandb and importlib.util.find_spec("wandb") is None:
    yield (
      f"logs.wandb={config.logs.wandb!r} sends metrics to Weights & Biases, "
      "which is not installed: pip install wandb, or logs.wandb=None"
    )


def _weights(config: Any) -> Iterator[str]:
  """Where the weights come from that a run starts with."""
  if config.stage in ("finetune", "linear") and config.init_from is None:
    yield (
      f"init_from=None: {config.stage} starts from trained weights, and needs "
      "the work directory or checkpoint that has them (supervised starts from "
      "none)"
    )
  if config.freeze_backbone and config.init_from is None:
    yield (
      "freeze_backbone=True without init_from would freeze random weights; "
      "init_from must be a work directory or checkpoint"
    )
  if config.init_from and not pathlib.Path(config.init_from).exists():
    yield (
      f"init_from={config.init_from!r} does not exist; it must be a work "
      "directory or a checkpoint in it"
    )


def _get(config: Any, key: str) -> Any:
  value: Any = config
  for name in key.split("."):
    value = value[name]
  return value


# In the order in which a person would mend them.
RULES = (
  _length,
  _tasks,
  _data,
  _view,
  _decoding,
  config_model.problems,
  _mixing,
  _drloc,
  _optimizer,
)
RULES_HERE = (_files, _weights, _logs)
