"""Geometry of a height × width grid of patches: what the pair tasks ask for.

Patches are numbered in reading order; a patch's coordinates are its (row,
column). The tables `relations`, `distances`, `angles` and `positions` are the
definition of the tasks, for tests, notebooks and figures. The training step
does not read them: it calls the `pair_*` functions, from which the tables are
made, on the coordinates of the patches in the order an image shows them.

Source: Camporese et al., "Where are my Neighbors?", BMVC 2022, and the figures
that the authors' code computed for sides 3 and 8.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int, Integer, Shaped

from relvit_jax import resize

# NumPy in, NumPy out; JAX in, JAX out.
Arrays = TypeVar("Arrays", np.ndarray, jax.Array)

RELATIONS = (
  "up_left",
  "up",
  "up_right",
  "left",
  "same",
  "right",
  "down_left",
  "down",
  "down_right",
)

# The official code adds it to the product of the two norms; without it patches
# on one line through the origin would give a cosine just above 1.
_ANGLE_EPSILON = np.float32(1e-4)


def coordinates(height: int, width: int) -> Int[np.ndarray, "N 2"]:
  """(row, column) of every patch of the grid, in reading order, int32."""
  if height < 1 or width < 1:
    raise ValueError(f"a grid needs at least 1×1 patches, got {height}×{width}")
  return np.stack(
    np.divmod(np.arange(height * width, dtype=np.int32), np.int32(width)), -1
  )


def relations(height: int, width: int) -> Int[np.ndarray, "N N"]:
  """Where patch a sits seen from patch b, at [a, b]: an index of RELATIONS."""
  return pair_relations(coordinates(height, width))


def distances(height: int, width: int) -> Float[np.ndarray, "N N"]:
  """Euclidean distance of two patches, from -1 (same) to 1 (the farthest)."""
  return pair_distances(coordinates(height, width), (height, width))


def angles(height: int, width: int) -> Float[np.ndarray, "N N"]:
  """The official angle of two patches, from -1 (same) to 1 (the largest).

  It is not the direction from one patch to the other: it is the angle under
  which an observer sees the two who stands half a grid above and to the left
  of the first patch.
  """
  return pair_angles(coordinates(height, width), (height, width))


def positions(height: int, width: int) -> Int[np.ndarray, " N"]:
  """The number of every patch: what the position task asks for."""
  return np.arange(len(coordinates(height, width)), dtype=np.int32)


def pair_relations(
  first: Int[Arrays, "*B n 2"], second: Int[Arrays, "*B N 2"] | None = None
) -> Int[Arrays, "*B n N"]:
  """`relations` of patches at any coordinates; without second, of all pairs."""
  xp = _namespace(first)
  direction = xp.sign(_offsets(first, second))
  return 3 * (direction[..., 0] + 1) + direction[..., 1] + 1


def pair_distances(
  first: Int[Arrays, "*B n 2"],
  grid_size: tuple[int, int],
  second: Int[Arrays, "*B N 2"] | None = None,
) -> Float[Arrays, "*B n N"]:
  """`distances` of patches at any coordinates of a grid of `grid_size`."""
  xp = _namespace(first)
  offsets = _offsets(first, second).astype(np.float32)
  lengths = xp.sqrt(xp.sum(offsets * offsets, axis=-1))
  return lengths / max_distance(grid_size) * 2 - 1


def pair_angles(
  first: Int[Arrays, "*B n 2"],
  grid_size: tuple[int, int],
  second: Int[Arrays, "*B N 2"] | None = None,
) -> Float[Arrays, "*B n N"]:
  """`angles` of patches at any coordinates of a grid of `grid_size`."""
  angles = _raw_angles(first, first if second is None else second, grid_size)
  return angles / _max_angle(grid_size) * 2 - 1


@functools.cache
def max_distance(grid_size: tuple[int, int]) -> np.float32:
  """Distance of opposite corners, in patches; 1 for a single patch."""
  height, width = grid_size
  return np.float32(np.hypot(height - 1, width - 1)) or np.float32(1)


@functools.cache
def _max_angle(grid_size: tuple[int, int]) -> np.float32:
  patches = coordinates(*grid_size)
  # By parts: all pairs of 128×128 patches would fill 1 GB an array. An angle is
  # the same from either of its patches.
  angles = [
    _raw_angles(patches[i : i + 16], patches[i:], grid_size).max()
    for i in range(0, len(patches), 16)
  ]
  return max(angles) or np.float32(1)


def _raw_angles(
  first: Int[Arrays, "*B n 2"],
  second: Int[Arrays, "*B N 2"],
  grid_size: tuple[int, int],
) -> Float[Arrays, "*B n N"]:
  """Angles in units of π, in float32 throughout as the official figures.

  Near zero a cosine keeps few digits of its angle, so the order of operations
  is part of the definition: float64 differs by up to 2e-4 after scaling.
  """
  xp = _namespace(first)
  y, x = _from_observer(first[..., :, None, :], grid_size)
  y2, x2 = _from_observer(second[..., None, :, :], grid_size)
  # No product is below 0.25. The maximum keeps XLA from contracting product
  # and sum to one multiply-add, which rounds once where the definition rounds
  # twice; an optimization barrier is dropped before that happens (JAX 0.10).
  products = xp.maximum(
    xp.sqrt(y * y + x * x) * xp.sqrt(y2 * y2 + x2 * x2), 0.25
  )
  dots = y * y2 + x * x2
  # From 24 patches a side the float32 product swallows the epsilon.
  cosine = xp.clip(dots / (products + _ANGLE_EPSILON), -1, 1)
  # arccos, in the form that is accurate near 1: XLA's own is not.
  angle = 2 * xp.arctan2(xp.sqrt(1 - cosine), xp.sqrt(1 + cosine))
  same = xp.all(_offsets(first, second) == 0, axis=-1)
  return xp.where(same, np.float32(0), angle / np.float32(np.pi))


def _from_observer(
  coordinates: Int[Arrays, "*B 2"], grid_size: tuple[int, int]
) -> tuple[Float[Arrays, "*B"], Float[Arrays, "*B"]]:
  """(rows down, columns to the right) of the one who sees the angles."""
  height, width = grid_size
  return (
    coordinates[..., 0].astype(np.float32) + np.float32(height / 2),
    coordinates[..., 1].astype(np.float32) + np.float32(width / 2),
  )


def permute_pairs(
  table: Shaped[np.ndarray | jax.Array, "N N"],
  permutation: Integer[np.ndarray | jax.Array, "B N"],
) -> Shaped[np.ndarray | jax.Array, "B N N"]:
  """The table for images that show patch `permutation[b, i]` at place i."""
  if isinstance(permutation, jax.Array):
    table = jnp.asarray(table)  # NumPy cannot be indexed by a traced array.
  return table[permutation[:, :, None], permutation[:, None, :]]


def patchify(
  images: Shaped[Arrays, "B H W C"], patch_size: int
) -> Shaped[Arrays, "B N D"]:
  """Cuts images into patches of patch_size² pixels, both in reading order.

  D runs over (row in the patch, column in the patch, channel).
  """
  batch, height, width, channels = images.shape
  rows, columns = grid_of((height, width), patch_size)
  patches = images.reshape(
    batch, rows, patch_size, columns, patch_size, channels
  )
  patches = patches.transpose(0, 1, 3, 2, 4, 5)
  return patches.reshape(batch, rows * columns, patch_size**2 * channels)


def unpatchify(
  patches: Shaped[Arrays, "B N D"], grid_size: tuple[int, int], patch_size: int
) -> Shaped[Arrays, "B H W C"]:
  """The inverse of `patchify`."""
  rows, columns = grid_size
  batch, num_patches, width = patches.shape
  if num_patches != rows * columns or width % patch_size**2:
    raise ValueError(
      f"patches of shape {patches.shape} are not a {rows}×{columns} grid of "
      f"{patch_size}×{patch_size} pixels"
    )
  images = patches.reshape(batch, rows, columns, patch_size, patch_size, -1)
  images = images.transpose(0, 1, 3, 2, 4, 5)
  return images.reshape(batch, rows * patch_size, columns * patch_size, -1)


def mega_patches(
  images: Float[np.ndarray | jax.Array, "B H W C"],
  row_cuts: Integer[np.ndarray | jax.Array, "*R"],
  column_cuts: Integer[np.ndarray | jax.Array, "*K"],
  patch_size: int,
  *,
  antialias: bool = True,
) -> Float[jax.Array, "B h w C"]:
  """Cuts images along an uneven grid and shrinks each part to one patch.

  Args:
    images: of any range.
    row_cuts: the S - 1 inner borders between rows, in patches from the top,
      ascending; [S-1] or, for each image its own, [B, S-1]. May be traced.
    column_cuts: the same between columns, from the left.
    patch_size: pixels.
    antialias: False leaves pixels out where a part shrinks to less than half,
      as the torchvision (0.9.1) that the official code was released with.

  Returns:
    S·patch_size pixels to each side, bilinear; the parts of an image keep
    their order.
  """
  _, height, width, _ = images.shape
  grid_size = grid_of((height, width), patch_size)
  for name, cuts, count in zip(
    ("row_cuts", "column_cuts"), (row_cuts, column_cuts), grid_size, strict=True
  ):
    _check_cuts(name, cuts, count)
  rows, columns = (
    _shrink_weights(jnp.asarray(cuts), length, patch_size, antialias)
    for cuts, length in ((row_cuts, height), (column_cuts, width))
  )
  return resize.weighted_sums(jnp.asarray(images), rows, columns)


def _check_cuts(
  name: str, cuts: Integer[np.ndarray | jax.Array, "*S"], count: int
) -> None:
  """Raises unless every part has a patch; traced cuts have no values yet."""
  if isinstance(cuts, Tracer):
    return
  borders = np.atleast_2d(cuts)
  if (np.diff(borders, prepend=0, append=count) < 1).any():
    raise ValueError(
      f"{name}={np.asarray(cuts).tolist()} must ascend from at least 1 to at "
      f"most {count - 1}: the image has {count} patches along it"
    )


def _shrink_weights(
  cuts: Integer[jax.Array, "*S"], length: int, patch_size: int, antialias: bool
) -> Float[jax.Array, "B out length"]:
  """What each pixel along an axis of `mega_patches` takes from the image's."""
  cuts = jnp.atleast_2d(cuts).astype(jnp.int32) * patch_size
  inner = ((0, 0), (1, 0)), ((0, 0), (0, 1))
  starts = jnp.pad(cuts, inner[0])  # [B, S]
  sizes = jnp.pad(cuts, inner[1], constant_values=length) - starts
  weights = resize.axis_weights(
    starts, sizes, patch_size, length, antialias=antialias
  )
  return weights.reshape(len(cuts), -1, length)


def grid_of(image_size: tuple[int, int], patch_size: int) -> tuple[int, int]:
  """Rows and columns of patches of an image of (height, width) pixels."""
  height, width = image_size
  if patch_size < 1 or height % patch_size or width % patch_size:
    raise ValueError(
      f"patch_size={patch_size} must divide the image's height and width, "
      f"which are {height}×{width} pixels"
    )
  return height // patch_size, width // patch_size


def _offsets(
  first: Int[Arrays, "*B n 2"], second: Int[Arrays, "*B N 2"] | None
) -> Int[Arrays, "*B n N 2"]:
  """First patch minus second: negative where a is above or left of b."""
  second = first if second is None else second
  return first[..., :, None, :] - second[..., None, :, :]


def _namespace(array: np.ndarray | jax.Array) -> ModuleType:
  return jnp if isinstance(array, jax.Array) else np
