"""Two feeds, the same batches."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from real_images import photographs

from relvit_jax.data import (
  feed,
  images,
  loading,
  read_ahead,
  sources,
)
from relvit_jax.training import partitioning

SPLITS = sources.digits()
MESH = partitioning.make_mesh(devices=jax.devices()[:4])
WORDS = np.array([1, 2], np.uint32)
ROOM = 5


def batches(made, step, count):
  """What the compiled steps from `step` on would be fed, on the host."""
  data = made.block(WORDS, step, count)

  @jax.jit
  def read(data, step):
    batch_of = made.batches(jnp.asarray(WORDS), data, step)
    return [batch_of(jnp.int32(i)) for i in range(count)]

  return jax.device_get(read(data, jnp.int32(step)))


def streaming(num_workers=0):
  return feed.make(
    SPLITS["train"],
    batch_size=32,
    max_steps=ROOM,
    mesh=MESH,
    num_workers=num_workers,
    stream=True,
  )


@pytest.fixture(scope="module")
def resident():
  return feed.make(SPLITS["train"], batch_size=32, max_steps=ROOM, mesh=MESH)


def assert_same(ours, theirs):
  assert len(ours) == len(theirs)
  for one, other in zip(ours, theirs, strict=True):
    assert one.keys() == other.keys() == {"image", "label"}
    for key, value in one.items():
      np.testing.assert_array_equal(value, other[key])


@pytest.mark.parametrize("step", [0, 33, 1_000])
def test_both_feeds_show_the_same_examples(resident, step):
  assert isinstance(resident, feed.Resident)
  stream = streaming()
  assert isinstance(stream, feed.Streaming)
  assert_same(batches(stream, step, 3), batches(resident, step, 3))


def test_both_feeds_repeat_alike():
  keys = {"batch_size": 32, "max_steps": ROOM, "mesh": MESH, "repeats": 3}
  kept, streamed = (
    feed.make(SPLITS["train"], stream=stream, **keys)
    for stream in (False, True)
  )
  ours, theirs = batches(kept, 33, 3), batches(streamed, 33, 3)
  assert_same(ours, theirs)
  for batch in ours:
    assert len(np.unique(batch["image"], axis=0)) in (11, 12)


def test_worker_processes_read_the_same_stream(resident):
  stream = streaming(num_workers=2)
  assert_same(batches(stream, 7, 3), batches(resident, 7, 3))
  assert_same(batches(stream, 10, 2), batches(resident, 10, 2))


def test_a_stream_goes_on_and_goes_back(resident):
  stream = streaming()
  for step, count in ((0, 2), (2, 5), (7, 1), (3, 2), (3, 2)):
    assert_same(batches(stream, step, count), batches(resident, step, count))


def test_another_run_gets_another_stream():
  stream = streaming()
  first = stream.block(WORDS, 0, 1)["label"]
  again = stream.block(WORDS + np.uint32(1), 0, 1)["label"]
  assert (np.asarray(first[0]) != np.asarray(again[0])).any()


def test_blocks_of_any_length_have_one_shape_and_share_the_batch():
  stream = streaming()
  for count in (1, 5):
    images = stream.block(WORDS, 0, count)["image"]
    assert images.shape == (ROOM, 32, 8, 8, 3)
    assert images.dtype == np.uint8
    assert images.addressable_shards[0].data.shape == (ROOM, 8, 8, 8, 3)


@pytest.mark.parametrize(
  ("size", "steps"), [(8, 20), (224, 6), (1_024, 1), (4_096, 1)]
)
def test_blocks_of_large_images_have_fewer_steps(size, steps):
  class Large:
    name, class_names, image_shape = "large", ("a",), (size, size, 3)

    def __len__(self):
      return 100

    def take(self, indices):
      return {}

  made = feed.make(Large(), batch_size=1024, max_steps=20, mesh=MESH)
  assert made.max_steps == steps


def cropping(num_workers=0, batch_size=8, examples=None):
  return feed.make(
    examples or photographs(),
    batch_size=batch_size,
    max_steps=ROOM,
    mesh=MESH,
    num_workers=num_workers,
  )


def test_crops_come_as_bytes_of_the_shown_size_and_know_their_boxes():
  made = cropping()
  data = jax.device_get(made.block(WORDS, 0, 5))
  assert {key: (a.shape, a.dtype) for key, a in data.items()} == {
    "image": ((5, 8, 12, 12, 3), np.uint8),
    "label": ((5, 8), np.int32),
    "box": ((5, 8, 4), np.float32),
  }
  assert len(np.unique(data["box"].reshape(-1, 4), axis=0)) > 30
  made.close()


def test_crops_are_the_same_wherever_the_run_was_stopped_and_who_decodes():
  whole = batches(cropping(), 0, 5)
  for num_workers in (0, 2):
    made = cropping(num_workers)
    rest = batches(made, 3, 2)
    made.close()
    for one, other in zip(whole[3:], rest, strict=True):
      for key, value in one.items():
        np.testing.assert_array_equal(value, other[key])


def test_pieces_of_a_batch_are_put_where_they_belong(monkeypatch):
  monkeypatch.setattr(read_ahead, "_PIECE_BYTES", 3 * 12 * 12 * 3)
  made = cropping()
  data = jax.device_get(made.block(WORDS, 2, 2))
  made.close()
  for i in range(2):
    rows = loading.training_rows(photographs(), WORDS, 8, 1, 2 + i, slice(0, 8))
    for key, value in rows.items():
      np.testing.assert_array_equal(data[key][i], value)


def test_the_next_block_is_read_while_the_device_works():
  """All of it, and no more: what waits is bounded."""
  taken, enough = [], threading.Semaphore(0)

  class Counted(sources.Split):
    def take(self, indices):
      taken.append(len(indices))
      enough.release()
      return super().take(indices)

  train = SPLITS["train"]
  made = feed.Streaming(
    Counted("x", train.images, train.labels, train.class_names), 32, ROOM, MESH
  )
  made.block(WORDS, 0, ROOM)
  for _ in range(2 * ROOM):
    assert enough.acquire(timeout=10)
  assert not enough.acquire(timeout=0.2)
  assert taken == [32] * 2 * ROOM
  made.close()


def test_a_stream_that_was_closed_or_failed_begins_anew():
  class Sometimes(sources.Split):
    fails = False

    def take(self, indices):
      if self.fails:
        raise OSError("the disk is away")
      return super().take(indices)

  train = SPLITS["train"]
  split = Sometimes("x", train.images, train.labels, train.class_names)
  stream = feed.Streaming(split, 32, 1, MESH)
  first = batches(stream, 0, 1)
  stream.close()
  assert_same(first, batches(stream, 0, 1))
  Sometimes.fails = True
  stream.close()
  with pytest.raises(OSError, match="the disk is away"):
    stream.block(WORDS, 0, 1)
  Sometimes.fails = False
  assert_same(first, batches(stream, 0, 1))
  stream.close()


def test_a_damaged_photograph_is_named_from_a_worker():
  examples = photographs()
  examples.source[5]["image"] = examples.source[5]["image"][:-100]
  for num_workers in (0, 1):
    stream = cropping(num_workers, 24, examples)
    with pytest.raises(images.ImageError, match=r"scans, image 5: damaged or"):
      stream.block(WORDS, 0, 1)
    stream.close()


def test_an_unreadable_image_stops_the_stream():
  class Broken:
    name, class_names, image_shape = "broken", ("a",), (8, 8, 3)

    def __len__(self):
      return 100

    def take(self, indices):
      raise ValueError("broken, image 7 is truncated")

  stream = feed.make(Broken(), batch_size=4, max_steps=1, mesh=MESH)
  with pytest.raises(ValueError, match="image 7 is truncated"):
    stream.block(WORDS, 0, 1)


@pytest.mark.parametrize("kind", ["resident", "streaming", "cropping"])
def test_an_outline_has_the_shapes_of_a_block(kind, resident):
  made = {"streaming": streaming, "cropping": cropping}.get(
    kind, lambda: resident
  )()
  block = made.block(WORDS, 0, 1)
  assert {
    key: (value.shape, value.dtype, value.sharding)
    for key, value in block.items()
  } == {
    key: (value.shape, value.dtype, value.sharding)
    for key, value in made.outline().items()
  }
  made.close()


def test_a_batch_too_large_to_count_on_a_device_is_refused_at_once():
  train = SPLITS["train"]
  with pytest.raises(ValueError, match="batch_size=2000000 times 1097"):
    feed.make(train, batch_size=2_000_000, max_steps=1, mesh=MESH)
