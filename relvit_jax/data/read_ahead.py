"""Batches in pieces, loaded ahead of who needs them, by threads or processes.

A batch is cut into pieces of a few megabytes, so that several workers share
it: the first is there sooner, and less waits in memory. Which pieces there are
follows from sizes alone; who loads them changes nothing.
"""

from __future__ import annotations

import functools
import gc
import itertools
import os
import signal
from collections.abc import Callable, Generator

import numpy as np

Piece = dict[str, np.ndarray]

# What a piece is to have at most: 27 images of 224 pixels, 341 of 64.
_PIECE_BYTES = 4 * 2**20

# By default processes decode where there are at least so many for it. On two
# cores, of JPEGs of 500×375 pixels cropped to 224, threads take 1.5 ms of a
# core for an image and have the first 256 after 0.7 s of it; processes 1.8 ms,
# and each 2.1 s to start. But threads share Python's lock, which is held for a
# sixth of the work: more than about five cores they cannot keep at it.
_AS_THREADS = 4
_MOST_THREADS = 8
_MOST = 16  # Each takes 0.3 GB of memory.
_WORTH_A_PROCESS = 2_000  # Images that are decoded while one starts, and more.


def cores() -> int:
  """Of the processor, that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def workers(asked: int | None, num_images: int | None = None) -> int:
  """How many processes decode, 0 for threads: as asked, or what is best here.

  Args:
    asked: data.num_workers.
    num_images: that will be read; None: more than can be counted.
  """
  if asked is not None:
    return asked
  most = min(cores() - 1, _MOST)
  if num_images is not None:
    most = min(most, num_images // _WORTH_A_PROCESS)
  return most if most >= _AS_THREADS else 0


def cut(rows: slice, row_bytes: int) -> list[slice]:
  """Rows of a batch in pieces: as few and as even as their size allows."""
  count = rows.stop - rows.start
  most = max(1, _PIECE_BYTES // row_bytes)
  number = -(-count // most)
  ends = [rows.start + count * i // number for i in range(number + 1)]
  return [slice(*pair) for pair in itertools.pairwise(ends)]


def pieces(
  load: Callable[[int, slice], Piece],
  parts: list[slice],
  batches: range,
  *,
  ahead: int,
  num_workers: int,
) -> Generator[Piece, None, None]:
  """All pieces of batches.start, then of the next batch, …

  Closing it ends whoever loads.

  Args:
    load: (number of a batch, rows) → these rows of it; picklable if there are
      workers.
    parts: the rows of each piece.
    batches: their numbers, one after another.
    ahead: how many pieces to have ready, or under way, before they are needed.
    num_workers: processes that load; 0: threads of this one.

  Raises:
    Exception: what `load` raised.
    RuntimeError: a worker died; with its exit code.
  """
  import grain

  count = len(parts)
  if num_workers:
    threads, ahead = 1, -(-ahead // num_workers)
  else:
    threads = min(cores(), _MOST_THREADS)
  read = (
    grain.MapDataset.range(batches.start * count, batches.stop * count)
    .map(functools.partial(_load_piece, load, parts))
    .to_iter_dataset(
      grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=max(threads, ahead)
      )
    )
  )
  if num_workers:
    from absl import flags

    # Grain's workers read absl's flags, which only an absl program parses.
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()
    # The semaphores of workers that ended lie in cycles. If Python happens to
    # release one while it registers the next worker's, it warns and leaks it.
    gc.collect()
    read = read.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=num_workers),
      worker_init_fn=_start_worker,
    )
  iterator = iter(read)
  try:
    yield from iterator
  finally:
    iterator.close()


def _start_worker(index: int, count: int) -> None:
  """Schedulers tell all processes of a run to stop; this one's parent does."""
  del index, count
  signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _load_piece(
  load: Callable[[int, slice], Piece], parts: list[slice], index: int
) -> Piece:
  batch, part = divmod(index, len(parts))
  return load(batch, parts[part])
