"""Grids and windows of what works in stages; starts no JAX."""

from __future__ import annotations

from collections.abc import Sequence

# (rows, columns) of tokens.
Grid = tuple[int, int]

# (side of a window, its stride) of each soft split of T2T-ViT.
SOFT_SPLITS = ((7, 4), (3, 2), (3, 2))


def stage_grids(
  image_size: tuple[int, int], patch_size: int, num_stages: int
) -> list[Grid]:
  """(rows, columns) of tokens in each stage.

  Raises:
    ValueError: the image cannot be halved so often.
  """
  step = patch_size * 2 ** (num_stages - 1)
  if patch_size < 1 or any(length % step for length in image_size):
    height, width = image_size
    raise ValueError(
      f"image_size={height}×{width} must be a multiple of {step}: of "
      f"patch_size={patch_size}, doubled in each stage after the first"
    )
  height, width = image_size
  sides = [patch_size * 2**i for i in range(num_stages)]
  return [(height // side, width // side) for side in sides]


def window_sizes(grids: Sequence[Grid], window_size: int) -> list[int]:
  """Tokens a side of the windows of each stage.

  Raises:
    ValueError: windows do not fill a stage's grid; with the sizes that would.
  """
  problem = _misfit(grids, window_size)
  if problem:
    would = ", ".join(map(str, fitting_windows(grids)))
    raise ValueError(f"window_size={window_size} {problem}; {would} would do")
  return [min(window_size, *grid_size) for grid_size in grids]


def fitting_windows(grids: Sequence[Grid]) -> list[int]:
  """All sizes of windows that fill every stage, ascending."""
  sizes = range(1, min(grids[0]) + 1)
  return [size for size in sizes if not _misfit(grids, size)]


def _misfit(grids: Sequence[Grid], window_size: int) -> str | None:
  """Why windows of this size are none for these grids, if they are not."""
  rows, columns = grids[0]
  if window_size not in range(1, min(rows, columns) + 1):
    return (
      f"must be a whole number from 1 to the shorter side of the {rows}×"
      f"{columns} tokens of stage 0"
    )
  for i, (rows, columns) in enumerate(grids):
    size = min(window_size, rows, columns)
    if rows % size or columns % size:
      return (
        f"cuts no whole {size}×{size} windows out of the {rows}×{columns} "
        f"tokens of stage {i}"
      )
  return None
