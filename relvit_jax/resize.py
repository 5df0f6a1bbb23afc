"""Bilinear resizing as two small matrix products, boxes of each image its own.

A gather would fetch pixel by pixel; as weights along either axis, boxes that
differ between images are one batched product, and may be traced.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped


def axis_weights(
  starts: Shaped[jax.Array, "*B"],
  sizes: Shaped[jax.Array, "*B"],
  count: int,
  length: int,
  *,
  antialias: bool = True,
  bounded: bool = True,
) -> Float[jax.Array, "*B {count} {length}"]:
  """What `count` pixels take from the `length` pixels along an image's axis.

  Args:
    starts: where the stretch begins that is resized, in pixels, whole or not.
    sizes: how long it is, in pixels, more than 0.
    count: pixels that it is resized to.
    length: pixels of the whole axis.
    antialias: the triangle around a pixel's centre is as wide as the stretch
      is shrunk. Without it, and when enlarging, it ends one pixel to each side.
    bounded: only pixels that the stretch touches count. False: its neighbours
      too, as if the whole image had been resized before the stretch was cut.

  Returns:
    Weights that sum to 1 along the last axis.
  """
  shape = starts.shape
  starts, sizes = starts.reshape(-1, 1, 1), sizes.reshape(-1, 1, 1)
  scale = sizes / count
  width = jnp.maximum(scale, 1) if antialias else 1
  pixel = jnp.arange(length)[None, None, :] - starts  # Within the stretch.
  centre = (jnp.arange(count)[None, :, None] + 0.5) * scale
  weights = jnp.maximum(0, 1 - jnp.abs(pixel + 0.5 - centre) / width)
  if bounded:
    weights = jnp.where((pixel > -1) & (pixel < sizes), weights, 0)
  weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
  return weights.reshape(*shape, count, length)


def weighted_sums(
  images: Float[jax.Array, "B H W C"],
  rows: Float[jax.Array, "#B h H"],
  columns: Float[jax.Array, "#B w W"],
) -> Float[jax.Array, "B h w C"]:
  """Images whose pixels are weighted sums along both axes of the given ones."""
  return jnp.einsum(
    "bih,bhwc,bjw->bijc",
    jnp.broadcast_to(rows, (len(images), *rows.shape[1:])),
    images,
    jnp.broadcast_to(columns, (len(images), *columns.shape[1:])),
    precision=jax.lax.Precision.HIGHEST,
  )
