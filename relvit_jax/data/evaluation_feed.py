"""Batches for evaluation: a split in order, once."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator

import numpy as np
from jax.sharding import Mesh

from relvit_jax.data import loading, read_ahead, shares, splits
from relvit_jax.data.feed import Batch, Examples, Pieces


def batches(
  examples: Examples,
  batch_size: int,
  num_workers: int | None = 0,
  mesh: Mesh | None = None,
) -> Iterator[Batch]:
  """The split in order, in batches of one size.

  The last is filled up; "mask" is false where an example is such a filling.

  Args:
    examples: of any split.
    batch_size: over all processes; each reads its own rows of a batch.
    num_workers: processes that decode; 0: threads; None: as
      `read_ahead.workers` finds best.
    mesh: the devices that batches are put on; None leaves them on the host.
  """
  if mesh is None:
    yield from _rows(examples, batch_size, num_workers, [slice(0, batch_size)])
    return
  share = shares.Share(mesh, batch_size)
  rows = _rows(examples, batch_size, num_workers, share.rows)
  with contextlib.closing(rows):
    for own in rows:
      yield {key: share.put(value) for key, value in own.items()}


def _rows(
  examples: Examples,
  batch_size: int,
  num_workers: int | None,
  rows: list[slice],
) -> Pieces:
  load = functools.partial(loading.evaluation_rows, examples, batch_size)
  num_batches = -(-len(examples) // batch_size)
  if isinstance(examples, splits.Split):
    for i in range(num_batches):
      yield _joined([load(i, span) for span in rows])
    return
  image_bytes = math.prod(loading.shape(examples, training=False))
  parts = [part for span in rows for part in read_ahead.cut(span, image_bytes)]
  read = read_ahead.pieces(
    load,
    parts,
    range(num_batches),
    ahead=2 * len(parts),
    num_workers=read_ahead.workers(num_workers, len(examples)),
  )
  with contextlib.closing(read):
    for _ in range(num_batches):
      yield _joined([next(read) for _ in parts])


def _joined(pieces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  return {
    key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]
  }
