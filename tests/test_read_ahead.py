"""Pieces of batches, ahead of who needs them: all, in order, or an error."""

import functools
import gc
import os
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax._src import xla_bridge

from relvit_jax.data import read_ahead

PARTS = [slice(0, 2), slice(2, 3)]


@pytest.mark.parametrize(
  ("count", "row_bytes", "parts"),
  [
    (256, 224 * 224 * 3, 10),
    (256, 64 * 64 * 3, 1),
    (256, 256 * 256 * 3, 13),
    (16, 224 * 224 * 3, 1),
    (3, 2**30, 3),
  ],
)
def test_a_piece_has_a_few_megabytes(count, row_bytes, parts):
  assert len(read_ahead.cut(slice(0, count), row_bytes)) == parts


@given(st.integers(0, 99), st.integers(1, 999), st.integers(1, 2**24))
def test_pieces_make_the_whole_and_are_even(first, count, row_bytes):
  parts = read_ahead.cut(slice(first, first + count), row_bytes)
  rows = [row for part in parts for row in range(part.start, part.stop)]
  assert rows == list(range(first, first + count))
  lengths = {part.stop - part.start for part in parts}
  assert max(lengths) - min(lengths) <= 1


def load(batch, rows):
  return {"row": 10 * batch + np.arange(rows.start, rows.stop)}


def read(load, batches, num_workers=0, ahead=4):
  return read_ahead.pieces(
    load, PARTS, batches, ahead=ahead, num_workers=num_workers
  )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_all_pieces_come_in_order_whoever_loads_them(num_workers):
  found = [
    piece["row"].tolist() for piece in read(load, range(3, 6), num_workers)
  ]
  assert found == [[30, 31], [32], [40, 41], [42], [50, 51], [52]]


def test_no_more_is_read_ahead_than_was_asked_for():
  loaded, enough = [], threading.Semaphore(0)

  def note(batch, rows):
    loaded.append(batch)
    enough.release()
    return load(batch, rows)

  reader = read(note, range(100), ahead=8)
  next(reader)
  for _ in range(9):
    assert enough.acquire(timeout=10)
  # One was taken and eight wait; a ninth would be under way by now.
  assert not enough.acquire(timeout=0.2)
  assert len(loaded) == 9
  reader.close()


class Knot:
  def __init__(self):
    self.me = self


def test_what_earlier_workers_left_is_released_before_others_start():
  gc.disable()
  try:
    left = weakref.ref(Knot())
    reader = read(load, range(1), num_workers=1)
    next(reader)
    assert left() is None
    reader.close()
  finally:
    gc.enable()


def dies(batch, rows):
  if batch == 1:
    os._exit(123)
  return load(batch, rows)


def test_the_death_of_a_worker_is_an_error_with_its_exit_code():
  reader = read(dies, range(9), num_workers=2)
  with pytest.raises(RuntimeError, match="exit code 123"):
    list(reader)
  reader.close()


def fails(message, batch, rows):
  raise ValueError(message)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_error_of_a_load_reaches_who_reads(num_workers):
  reader = read(
    functools.partial(fails, "image 7 is bad"), range(9), num_workers
  )
  with pytest.raises(ValueError, match="image 7 is bad"):
    next(reader)
  reader.close()


def devices(batch, rows):
  return {"started": np.array(xla_bridge.backends_are_initialized())}


def test_no_worker_starts_a_device():
  reader = read(devices, range(1), num_workers=1)
  assert not next(reader)["started"]
  reader.close()


@pytest.mark.parametrize(
  ("cores", "asked", "images", "workers"),
  [
    (16, 0, None, 0),
    (2, 3, 10, 3),
    (2, None, None, 0),
    (4, None, None, 0),
    (5, None, None, 4),
    (16, None, None, 15),
    (96, None, None, 16),
    (16, None, 5_000, 0),  # Threads are done before processes have started.
    (16, None, 10_000, 5),
    (16, None, 126_689, 15),
  ],
)
def test_processes_decode_where_they_pay(
  cores, asked, images, workers, monkeypatch
):
  monkeypatch.setattr(read_ahead, "cores", lambda: cores)
  assert read_ahead.workers(asked, images) == workers


def test_cores_are_those_that_the_process_may_use():
  assert 1 <= read_ahead.cores() <= os.cpu_count()
