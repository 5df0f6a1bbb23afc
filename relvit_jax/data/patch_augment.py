"""What happens to each patch of an image on the device.

Patches are those of `grid.patchify`, numbered in reading order, and each draws
its own numbers from the key of its image. As in `augment`, uint8 pixels become
float32 [0, 1] and floats keep their range; the official code calls all this on
standardised images.

Inside, pixels stand as [p, p, C, B, N], a place in the patch and a colour
first: what a patch draws then is [B, N], equal for whole planes, and every
operation runs along contiguous memory.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from relvit_jax import grid, resize
from relvit_jax.data import augment, colour


def mega_cuts(
  keys: Key[Array, " B"],
  grid_size: tuple[int, int],
  side: int,
  *,
  same_cuts: bool = False,
) -> tuple[Int[Array, "B S"], Int[Array, "B S"]]:
  """Borders of a side×side grid of mega-patches, all sets equally likely.

  Args:
    keys: of each example.
    grid_size: (rows, columns) of patches.
    side: mega-patches along each axis.
    same_cuts: columns are cut where rows are, as the official code does.

  Returns:
    The S = side - 1 inner borders between rows, and those between columns, in
    patches, ascending.
  """
  rows, columns = grid_size
  if not 1 <= side <= min(grid_size):
    raise ValueError(
      f"side={side} must be from 1 to {min(grid_size)}: the image has "
      f"{rows}×{columns} patches"
    )
  if same_cuts and rows != columns:
    raise ValueError(
      f"same_cuts needs as many rows as columns of patches, not "
      f"{rows}×{columns}"
    )
  numbers = augment.draw(keys, rows + columns - 2)

  def borders(numbers: Array) -> Array:
    return jnp.sort(jnp.argsort(numbers, axis=1)[:, : side - 1], axis=1) + 1

  row_cuts = borders(numbers[:, : rows - 1])
  column_cuts = borders(numbers[:, rows - 1 :])
  return row_cuts, row_cuts if same_cuts else column_cuts


def mega_patches(
  keys: Key[Array, " B"],
  images: Shaped[Array, "B H W C"],
  patch_size: int,
  side: int,
  *,
  same_cuts: bool = False,
  antialias: bool = True,
) -> Float[Array, "B S S C"]:
  """Images of side×side patches, each an uneven part shrunk to one patch.

  S is side·patch_size pixels. See `mega_cuts` and `grid.mega_patches`.
  """
  _, height, width, _ = images.shape
  grid_size = grid.grid_of((height, width), patch_size)
  cuts = mega_cuts(keys, grid_size, side, same_cuts=same_cuts)
  images = augment.to_float(images)
  return grid.mega_patches(images, *cuts, patch_size, antialias=antialias)


def crop_patches(
  keys: Key[Array, " B"],
  images: Shaped[Array, "B H W C"],
  patch_size: int,
  shrink: float | int = 1.15,
) -> Float[Array, "B H W C"]:
  """Enlarges a random part of each patch to the whole patch, bilinearly.

  A part has round(patch_size / shrink) pixels a side: 3 of 4, 7 of 8, 14 of
  16, 28 of 32; patches of 2 pixels stay as they are.
  """
  crop = round(patch_size / shrink) if shrink > 0 else 0
  if not 1 <= crop <= patch_size:
    raise ValueError(
      f"shrink={shrink} must leave from 1 to {patch_size} of patch_size="
      f"{patch_size} pixels, not round({patch_size} / {shrink})"
    )
  if crop == patch_size:
    return augment.to_float(images)
  pixels, grid_size = _open(images, patch_size)
  count = patch_size - crop + 1
  numbers = augment.draw(keys, 2, pixels.shape[-1])
  offsets = jnp.floor(numbers * count)
  for axis in (0, 1):
    pixels = _part(pixels, offsets[:, axis], crop, axis)
  weights = resize.axis_weights(
    jnp.zeros(()), jnp.array(crop), patch_size, crop
  )
  pixels = jnp.einsum(
    "iy,jx,yxcbn->ijcbn",
    weights,
    weights,
    pixels,
    precision=jax.lax.Precision.HIGHEST,
  )
  return _close(pixels, grid_size)


def jitter_patches(
  keys: Key[Array, " B"],
  images: Shaped[Array, "B H W C"],
  patch_size: int,
  *,
  brightness: float | int = 0.4,
  contrast: float | int = 0.4,
  saturation: float | int = 0.4,
  hue: float | int = 0.1,
  probability: float | int = 0.8,
) -> Float[Array, "B H W C"]:
  """Changes the colours of some patches as torchvision's ColorJitter does.

  What the numbers mean: `colour.draw_jitter` and `colour.apply_jitter`.
  """
  _check_colours(images)
  pixels, grid_size = _open(images, patch_size)
  jitter = colour.draw_jitter(
    keys,
    pixels.shape[-1],
    strengths=(brightness, contrast, saturation, hue),
    probability=probability,
  )
  return _close(colour.apply_jitter(pixels, jitter), grid_size)


def grey_patches(
  keys: Key[Array, " B"],
  images: Shaped[Array, "B H W C"],
  patch_size: int,
  probability: float | int = 0.2,
) -> Float[Array, "B H W C"]:
  """Takes the colour from some patches: three equal channels."""
  augment.check_share("probability", probability)
  _check_colours(images)
  pixels, grid_size = _open(images, patch_size)
  chosen = augment.draw(keys, pixels.shape[-1]) < probability  # [B, N]
  pixels = jnp.where(chosen[None, None, None], colour.grey(pixels), pixels)
  return _close(pixels, grid_size)


def permute_patches(
  keys: Key[Array, " B"], images: Shaped[Array, "B H W C"], patch_size: int
) -> tuple[Shaped[Array, "B H W C"], Int[Array, "B N"]]:
  """Shows the patches of each image in an order of its own.

  Returns:
    The images, and the patch that image b now shows at place i: pixels and
    targets follow the same order.
  """
  patches = grid.patchify(images, patch_size)
  order = jax.vmap(lambda key: jax.random.permutation(key, patches.shape[1]))(
    keys
  )
  # Whole patches move: a product with N×N weights would cost more.
  shown = jnp.take_along_axis(patches, order[:, :, None], axis=1)
  _, height, width, _ = images.shape
  grid_size = grid.grid_of((height, width), patch_size)
  return grid.unpatchify(shown, grid_size, patch_size), order


def _part(
  pixels: Float[Array, "p q C B N"],
  offsets: Float[Array, "B N"],
  crop: int,
  axis: int,
) -> Float[Array, "r s C B N"]:
  """The `crop` pixels along an axis of each patch from its offset on."""
  part = jax.lax.slice_in_dim(pixels, 0, crop, axis=axis)
  for offset in range(1, pixels.shape[axis] - crop + 1):
    here = (offsets == offset)[None, None, None]
    other = jax.lax.slice_in_dim(pixels, offset, offset + crop, axis=axis)
    part = jnp.where(here, other, part)
  return part


def _open(
  images: Shaped[Array, "B H W C"], patch_size: int
) -> tuple[Float[Array, "p p C B N"], tuple[int, int]]:
  """Pixels as this file works on them, and (rows, columns) of patches."""
  batch, height, width, channels = images.shape
  grid_size = grid.grid_of((height, width), patch_size)
  patches = grid.patchify(augment.to_float(images), patch_size)
  pixels = patches.reshape(batch, -1, patch_size, patch_size, channels)
  return pixels.transpose(2, 3, 4, 0, 1), grid_size


def _close(
  pixels: Float[Array, "p p C B N"], grid_size: tuple[int, int]
) -> Float[Array, "B H W C"]:
  """The inverse of `_open`."""
  patch_size, _, _, batch, num_patches = pixels.shape
  patches = pixels.transpose(3, 4, 0, 1, 2).reshape(batch, num_patches, -1)
  return grid.unpatchify(patches, grid_size, patch_size)


def _check_colours(images: Shaped[Array, "B H W C"]) -> None:
  if images.shape[-1] != 3:
    raise ValueError(
      f"images of shape {images.shape} must have 3 channels: red, green, blue"
    )
