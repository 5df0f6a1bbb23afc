"""Parts of a data set, in memory and on disk: alike to who takes a batch."""

import io
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from relvit_jax.data import boxes, images
from relvit_jax.data.images import ImageError
from relvit_jax.data.splits import Records, Split, blank


def png(pixels):
  file = io.BytesIO()
  Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG")
  return file.getvalue()


def pictures(*sizes):
  random = np.random.default_rng(0)
  return [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def records(kept, labels=None, **options):
  source = [
    {"image": png(image), "label": label}
    for image, label in zip(kept, labels or [0] * len(kept), strict=True)
  ]
  return Records("set/train", source, ("a", "b"), **options)


ALIKE = pictures(*[(4, 6)] * 7)
LABELS = [0, 1, 1, 0, -1, 1, 0]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), max_size=12))
def test_a_batch_is_the_same_from_memory_and_from_disk(indices):
  on_disk = records(ALIKE, LABELS)
  in_memory = Split(
    "set/train", np.stack(ALIKE), np.array(LABELS, np.int32), ("a", "b")
  )
  for examples in (on_disk, in_memory, on_disk.load()):
    batch = examples.take(np.array(indices, np.int64))
    assert batch.keys() == {"image", "label"}
    assert batch["image"].dtype == np.uint8
    assert batch["label"].dtype == np.int32
    assert batch["image"].shape == (len(indices), 4, 6, 3)
    assert batch["label"].tolist() == [LABELS[i] for i in indices]
    for i, index in enumerate(indices):
      np.testing.assert_array_equal(batch["image"][i], ALIKE[index])


def test_both_know_their_length_and_the_shape_of_their_images():
  on_disk = records(ALIKE, LABELS)
  for examples in (on_disk, on_disk.load()):
    assert (len(examples), examples.image_shape) == (7, (4, 6, 3))


def test_squashed_images_keep_the_size_they_had():
  kept = [np.full((h, w, 3), h, np.uint8) for h, w in ((4, 6), (9, 3), (5, 5))]
  examples = records(kept, stored_size=5)
  assert examples.image_shape == (5, 5, 3)
  for batch in (examples.take([2, 1]), examples.load().take([2, 1])):
    assert batch["size"].tolist() == [[5, 5], [9, 3]]
    assert batch["size"].dtype == np.int32
    assert batch["image"].shape == (2, 5, 5, 3)
    assert batch["image"][:, 0, 0, 0].tolist() == [5, 9]


def test_without_a_stored_size_all_have_the_size_of_the_first():
  examples = records(pictures((4, 6), (4, 6), (6, 4)))
  message = (
    r"set/train, image 2 has 6×4 pixels, the first has 4×6: set "
    r"data\.stored_size"
  )
  assert len(examples.take([1, 0])["image"]) == 2
  with pytest.raises(ImageError, match=message):
    examples.take([0, 2])
  with pytest.raises(ImageError, match=message):
    examples.load()


def test_a_damaged_record_is_named():
  examples = records(ALIKE)
  examples.source[5]["image"] = b"\xff\xd8\xff"
  for use in (lambda: examples.take([5]), examples.load):
    with pytest.raises(ImageError, match=r"set/train, image 5: "):
      use()


@pytest.mark.parametrize("label", [2, -2])
def test_a_label_that_is_no_class_is_named(label):
  examples = records(ALIKE, [0] * 6 + [label])
  for use in (lambda: examples.take([6]), examples.load):
    with pytest.raises(
      ValueError, match=f"image 6 has the label {label}, but there are 2 cl"
    ):
      use()


CROPS = boxes.Crops(6, (0.3, 1.0), (3 / 4, 4 / 3), 4, 0.8)


def test_crops_are_boxes_of_the_whole_images():
  kept = pictures((9, 6), (20, 30), (4, 4))
  examples = records(kept, [1, 0, -1], stored_size=2, crops=CROPS)
  numbers = np.random.default_rng(0).random((2, 22), np.float32)
  for chosen, of_each in (([2, 1], numbers), ([0, 1], None)):
    batch = examples.take_crops(chosen, of_each)
    side = 4 if of_each is None else 6
    assert batch.keys() == {"image", "label", "box"}
    assert batch["image"].shape == (2, side, side, 3)
    assert batch["image"].dtype == np.uint8
    for i, index in enumerate(chosen):
      assert batch["label"][i] == [1, 0, -1][index]
      box = CROPS.box(
        kept[index].shape[:2], None if of_each is None else of_each[i]
      )
      np.testing.assert_array_equal(batch["box"][i], box)
      view, _ = images.view(
        png(kept[index]),
        "x",
        side,
        lambda _, box=box: box,
        bounded=of_each is not None,
      )
      np.testing.assert_array_equal(batch["image"][i], view)
  # What is not asked for as a crop is the stored square.
  assert examples.take([1])["image"].shape == (1, 2, 2, 3)


def test_what_was_opened_without_crops_has_none():
  with pytest.raises(ValueError, match="set/train was opened without crops"):
    records(ALIKE, LABELS).take_crops([0])


def test_a_damaged_record_is_named_when_it_is_cropped():
  examples = records(ALIKE, crops=CROPS)
  examples.source[5]["image"] = png(ALIKE[0])[:-40]
  with pytest.raises(ImageError, match=r"set/train, image 5: damaged or cut"):
    examples.take_crops([0, 5])


def test_load_tells_how_far_it_is(monkeypatch):
  monkeypatch.setattr("relvit_jax.data.splits._CHUNK", 3)
  seen = []
  split = records(ALIKE, LABELS).load(seen.append)
  assert seen == [3, 3, 1]
  np.testing.assert_array_equal(split.images, np.stack(ALIKE))
  assert split.labels.tolist() == LABELS


def test_records_are_read_together_where_the_source_can():
  class Source(list):
    def __getitems__(self, keys):
      return [list.__getitem__(self, key) for key in keys]

    def __getitem__(self, key):
      assert key == 0, "one by one, beyond the first for its shape"
      return list.__getitem__(self, key)

  examples = records(ALIKE, LABELS)
  together = Records("x", Source(examples.source), ("a", "b"))
  np.testing.assert_array_equal(
    together.take([3, 1])["image"], examples.take([3, 1])["image"]
  )


def test_records_survive_the_way_to_another_process():
  examples = records(ALIKE, LABELS)
  again = pickle.loads(pickle.dumps(examples))
  np.testing.assert_array_equal(
    again.take([4])["image"], examples.take([4])["image"]
  )


def test_a_stored_size_of_nothing_is_refused():
  with pytest.raises(ValueError, match=r"data\.stored_size=0 must be at least"):
    records(ALIKE, stored_size=0)


def test_a_blank_split_shows_one_grey_and_keeps_the_rest():
  split = records(pictures((4, 6), (9, 3)), [1, 0], stored_size=4).load()
  nothing = blank(split)
  assert len(np.unique(nothing.images)) == 1
  assert abs(int(nothing.images[0, 0, 0, 0]) - split.images.mean()) < 1
  assert nothing.labels.tolist() == [1, 0]
  assert nothing.take([1])["size"].tolist() == [[9, 3]]
  assert nothing.name == "set/train, blank"
