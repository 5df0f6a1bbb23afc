"""The splits of a config, in memory where they fit."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from relvit_jax import config_limits
from relvit_jax.data import boxes, feed, sources, statistics
from relvit_jax.data import outlines as outlining
from relvit_jax.training import pieces

# Of a device's memory, what a resident split may take: the rest is for the
# activations of large batches.
_SHARE = 0.25
# Where TFDS keeps prepared data unless it is told otherwise.
_TFDS_DIR = "~/tensorflow_datasets"
# Examples that a fingerprint looks at.
_SOME = 64
# The same where a device does not tell its memory, as a CPU: bytes.
_UNKNOWN = 4 * 2**30


class Loaded(NamedTuple):
  """What `load` gives.

  Attributes:
    splits: train, validation and test.
    feed: which feed was chosen and why, in a line.
  """

  splits: dict[str, feed.Examples]
  feed: str


def load(config: Any, parts: tuple[str, ...] = sources.PARTS) -> Loaded:
  """Opens the data set of a config, and reads into memory what is to be there.

  Args:
    config: with the group `data` of `configs/common.py`.
    parts: which of train, validation and test.

  Raises:
    ValueError: the data set, a split of it or an image cannot be used.
  """
  splits = open_splits(config, parts)
  for part, split in splits.items():
    check_labels(config.tasks, part, split)
  stats = jax.local_devices()[0].memory_stats() or {}
  limit = stats.get("bytes_limit", _UNKNOWN / _SHARE)
  resident, why = _resident(config.data.feed, splits.values(), limit)
  if resident:
    return Loaded(_in_memory(splits), why)
  crops, how = _crops(config)
  if crops is None:
    return Loaded(splits, why)
  cropped = {
    part: dataclasses.replace(split, crops=crops)
    if isinstance(split, sources.Records)
    else split
    for part, split in splits.items()
  }
  return Loaded(cropped, why + how)


def outline(config: Any, device_bytes: float | int) -> Loaded:
  """What `load` would give where a device has so much memory, without a pixel.

  By the sizes of the data set where it is prepared, else by those that it is
  known to have.

  Args:
    config: as of `load`.
    device_bytes: of one device.

  Raises:
    ValueError: a split cannot be, or nothing is known of the data set.
  """
  outlines = _outlines(config)
  splits = {part: one.split() for part, one in outlines.items()}
  for part, split in splits.items():
    check_labels(config.tasks, part, split)
  resident, why = _resident(config.data.feed, splits.values(), device_bytes)
  if resident or config.data.stored_size is None:
    return Loaded(dict(splits), why)
  crops, how = _crops(config)
  records = {part: one.records(crops) for part, one in outlines.items()}
  return Loaded(dict(records), why + how)


def _outlines(config: Any) -> dict[str, outlining.Outline]:
  data = config.data
  side = config_limits.NATIVE_SIZES.get(data.name) or data.stored_size
  shape = side, data.stored_size is not None
  if not sources.is_there(
    data.name, folder=data.folder, classes=data.classes, data_dir=data.dir
  ):
    return outlining.published(data.name, data.splits.to_dict(), *shape)
  return {
    part: outlining.Outline(split.name, len(split), split.class_names, *shape)
    for part, split in open_splits(config).items()
  }


def open_splits(
  config: Any, parts: tuple[str, ...] = sources.PARTS
) -> dict[str, feed.Examples]:
  """The parts of the data set of a config; what is on disk is not yet read."""
  data = config.data
  return dict(
    sources.load_splits(
      data.name,
      {part: data.splits[part] for part in parts},
      folder=data.folder,
      classes=data.classes,
      data_dir=data.dir,
      stored_size=data.stored_size,
      max_skipped=data.max_skipped,
    )
  )


def fingerprint(splits: dict[str, feed.Examples]) -> dict[str, Any]:
  """By part: what two readers of the same data have in common.

  Of the pixels and labels those of some examples, from the first to the last.
  """
  result = {}
  for part, split in splits.items():
    some = np.linspace(0, len(split) - 1, _SOME).astype(int)
    taken = split.take(some)
    result[f"the {part} split"] = {
      "name": split.name,
      "images": len(split),
      "classes": list(split.class_names),
      "checksum": zlib.crc32(taken["image"].tobytes())
      ^ zlib.crc32(taken["label"].tobytes()),
    }
  return result


def colours(config: Any, train: feed.Examples) -> tuple[Any, Any]:
  """Mean and standard deviation to normalise with, of 1.

  Those of the config, or of the training split: measured once, and kept beside
  the prepared data.
  """
  if config.data.mean is not None:
    return config.data.mean, config.data.std
  if config.data.name == "digits":
    return statistics.measure(train)
  root = config.data.dir or os.environ.get("TFDS_DATA_DIR", _TFDS_DIR)
  folder = pathlib.Path(root).expanduser() / "relvit_colours"
  return statistics.remembered(train, folder)


def check_labels(tasks: Any, part: str, split: feed.Examples) -> None:
  """Raises if labels are to be learned where there are none."""
  if "label" in tasks and not split.class_names:
    raise ValueError(
      f"tasks={tuple(tasks)!r} learn labels, and {split.name} ({part}) has "
      "none: the stage pretrain does without"
    )


def _crops_at_decode(config: Any) -> bool:
  """Whether a stream of these images is cropped by who decodes them."""
  if config.data.crop_at_decode is not None:
    return config.data.crop_at_decode
  many_sizes = config.data.stored_size is not None
  return many_sizes and config.augment.crop == "resized"


def _crops(config: Any) -> tuple[boxes.Crops | None, str]:
  """What a stream shows of whole images, and that in words; None: nothing."""
  if not _crops_at_decode(config):
    return None, ""
  # Of no matter to crops: the colours are not yet known.
  crops = pieces.make_views(config, (0, 0, 0), (1, 1, 1)).crops
  return crops, "; cropped as they are decoded"


def _resident(
  wanted: str, splits: Any, device_bytes: float | int
) -> tuple[bool, str]:
  total = sum(len(split) * math.prod(split.image_shape) for split in splits)
  size = f"{total / 2**20:,.0f} MiB of pixels"
  if wanted != "auto":
    return wanted == "resident", f"{wanted}, as data.feed says; {size}"
  limit = device_bytes * _SHARE
  if total <= limit:
    return True, f"resident: {size} lie on the device"
  return False, (
    f"streaming: {size} are more than the {limit / 2**20:,.0f} MiB that a "
    "device has for them"
  )


def _in_memory(splits: dict[str, feed.Examples]) -> dict[str, feed.Examples]:
  """Decoded once; two parts that are one split are read once."""
  waiting = {
    split.name: split
    for split in splits.values()
    if isinstance(split, sources.Records)
  }
  loaded: dict[str, feed.Examples] = {}
  total = sum(len(split) for split in waiting.values())
  with tqdm(total=total, unit=" images", disable=None, leave=False) as bar:
    for name, split in waiting.items():
      bar.set_description(f"reading {name}")
      loaded[name] = split.load(bar.update)
  return {part: loaded.get(one.name, one) for part, one in splits.items()}
