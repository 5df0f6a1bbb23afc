"""Two feeds, the same batches; evaluation holds every example once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax.data import feed, sources
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

  made = feed.make(Large(), batch_size=256, max_steps=20, mesh=MESH)
  assert made.max_steps == steps


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


def test_evaluation_batches_hold_every_example_once():
  split = SPLITS["test"]
  read = list(feed.evaluation_batches(split, 128))
  assert {batch["image"].shape for batch in read} == {(128, 8, 8, 3)}
  masks = np.concatenate([batch["mask"] for batch in read])
  labels = np.concatenate([batch["label"] for batch in read])
  assert masks.sum() == 500
  np.testing.assert_array_equal(labels[masks], split.labels)
