"""Mean and standard deviation of the colours of a split, for normalisation."""

from __future__ import annotations

import hashlib
import json
import pathlib
import uuid

import numpy as np

from relvit_jax.data import feed

Colours = tuple[float, float, float]

_CHUNK = 512  # Images at a time: 100 MB at 256 pixels.


def measure(examples: feed.Examples) -> tuple[Colours, Colours]:
  """(mean, standard deviation) of red, green and blue, of 1.

  From counts of the 256 values: exact, in any order, of any number of images.
  """
  counts = np.zeros((3, 256), np.int64)
  for start in range(0, len(examples), _CHUNK):
    places = range(start, min(start + _CHUNK, len(examples)))
    pixels = examples.take(places)["image"].reshape(-1, 3)
    for colour in range(3):
      counts[colour] += np.bincount(pixels[:, colour], minlength=256)
  values = np.arange(256) / 255
  total = counts.sum(axis=1)
  mean = counts @ values / total
  spread = (values[None] - mean[:, None]) ** 2
  std = np.sqrt((counts * spread).sum(axis=1) / total)
  red, green, blue = mean.tolist()
  return (red, green, blue), tuple(std.tolist())


def remembered(
  examples: feed.Examples, folder: pathlib.Path
) -> tuple[Colours, Colours]:
  """`measure`, once for each split: kept in a file of this folder.

  Args:
    examples: whose name tells them from all others, as those of
      `sources.load_splits` do.
    folder: made if need be.
  """
  shape = "×".join(map(str, examples.image_shape))
  what = f"{examples.name}: {len(examples)} images of {shape}"
  name = hashlib.sha256(what.encode()).hexdigest()[:16]
  path = folder / f"{name}.json"
  if path.exists():
    known = json.loads(path.read_text(encoding="utf-8"))
    return tuple(known["mean"]), tuple(known["std"])
  mean, std = measure(examples)
  folder.mkdir(parents=True, exist_ok=True)
  content = {"split": what, "mean": mean, "std": std}
  text = json.dumps(content, indent=2, ensure_ascii=False)
  # Of a name of its own: the processes of a run do this at once.
  fresh = folder / f"{name}-{uuid.uuid4().hex}.new"
  fresh.write_text(text + "\n", encoding="utf-8")
  fresh.replace(path)
  return mean, std
