"""The kernels of every head; what counts as one is said in `kernels.py`.

Imports no JAX.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from relvit_jax.models import kernels, stages, variants
from relvit_jax.models.kernels import Kernel

# Of an image, that L_drloc is asked about: the default of its code.
NUM_PAIRS = 64
_SCORES = {"relation": 9, "distance": 1, "angle": 1}


class Made(NamedTuple):
  """What a backbone makes of an image.

  Attributes:
    tokens: that its blocks see; in Swin those of the first stage.
    grid_size: (rows, columns) of the patches that the pair heads see.
    width: of a token.
    num_features: that the label head reads.
  """

  tokens: int
  grid_size: stages.Grid
  width: int
  num_features: int


def of(task: str, made: Made, num_classes: int | None) -> Iterator[Kernel]:
  """The kernels of a task's head and loss.

  Raises:
    ValueError: there is no such task, or no number of classes for the labels.
  """
  patches = made.grid_size[0] * made.grid_size[1]
  if task == "label":
    if num_classes is None:
      raise ValueError("num_classes=None must be given for the label task")
    yield from kernels.product(task, made.num_features, num_classes)
  elif task == "drloc":
    yield from drloc_head(made.width, made.grid_size, NUM_PAIRS)
  elif task == "position":
    yield from kernels.linear(task, patches, made.width, patches)
    yield from kernels.loss(task, patches**2)
  elif task in _SCORES:
    yield from _pairs(task, patches, made.width)
  else:
    raise ValueError(
      f"task={task!r} has no head; there are {', '.join(variants.ALL_TASKS)}"
    )


def drloc_head(
  width: int,
  grid_size: stages.Grid,
  num_pairs: int,
  mode: str = "l1",
  use_abs: bool = True,
  *,
  hidden_dim: int = 512,
) -> Iterator[Kernel]:
  """`heads.DenseRelativeLocalisation` of so many pairs an image."""
  # Of each pair, the first patch and the second.
  for _ in range(2):
    yield from kernels.product(
      "drloc patches", num_pairs, math.prod(grid_size), width, gradients=1
    )
  last = 2 if mode == "l1" else hidden_dim
  widths = (2 * width, hidden_dim, hidden_dim, last)
  for before, after in itertools.pairwise(widths):
    yield from kernels.product("drloc", num_pairs, before, after)
  if mode != "l1":
    longest = max(grid_size)
    classes = longest if use_abs else 2 * longest - 1
    for _ in range(2):
      yield from kernels.product("drloc", num_pairs, last, classes)


def _pairs(task: str, patches: int, width: int) -> Iterator[Kernel]:
  """Nine relations share the width as far as nine divides it."""
  scores = _SCORES[task]
  inner = width // scores * scores
  for name in ("query", "key"):
    yield from kernels.linear(f"{task} {name}", patches, width, inner)
  operations = 2 * patches**2 * inner
  moved = 2 * patches * inner + scores * patches**2
  yield Kernel(f"{task} scores", operations, moved)
  for name in ("query", "key"):
    yield Kernel(
      f"{task} scores, gradient of {name}", operations, moved, 0, True
    )
  yield from kernels.loss(task, scores * patches**2)
