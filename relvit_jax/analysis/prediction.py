"""What a trained model says of one picture."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from relvit_jax import config_limits
from relvit_jax.data import images
from relvit_jax.training import metrics
from relvit_jax.training.trained import Trained


def read(path: pathlib.Path) -> UInt8[np.ndarray, "H W 3"]:
  """The pixels of an image file.

  Raises:
    FileNotFoundError, ImageError: it is not there, or no image.
  """
  if not path.is_file():
    raise FileNotFoundError(f"{path} is not there, or is no file")
  return images.decode(path.read_bytes(), str(path))


def ask(
  trained: Trained, picture: UInt8[np.ndarray, "H W 3"], top: int = 5
) -> dict[str, Any]:
  """Classes with their probabilities, and how well patches are placed.

  Args:
    trained: the model.
    picture: of any size; brought to the one that the model's data set has.
    top: how many classes to name.

  Returns:
    "classes": name → probability, the likeliest first, if the model has learned
    labels; "metrics": of the pair and position tasks, on this picture.
  """
  data = trained.config.data
  side = data.stored_size or config_limits.NATIVE_SIZES[data.name]
  batch = {
    "image": images.squash(picture, side)[None],
    "size": np.array([picture.shape[:2]], np.int32),
  }
  outputs = trained.outputs(batch)
  result: dict[str, Any] = {}
  if "label" in outputs:
    shares = np.asarray(jax.nn.softmax(outputs.pop("label")[0]))
    best = np.argsort(-shares)[:top]
    result["classes"] = {
      trained.class_names[index]: float(shares[index]) for index in best
    }
  result["metrics"] = {}
  if outputs:
    measured = metrics.measure(outputs, {}, trained.model.grid_size)
    result["metrics"] = metrics.means([measured])
  return result
