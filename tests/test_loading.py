"""Rows of batches are pure functions of the run, the step and the place."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from relvit_jax.data import boxes, loading, sources
from relvit_jax.data.splits import Records

WORDS = np.array([1, 2], np.uint32)
CROPS = boxes.Crops(6, (0.3, 1.0), (3 / 4, 4 / 3), 4, 0.8)


def photographs(count=10, **options):
  """Records of that many images, each of another size."""
  random = np.random.default_rng(0)
  kept = []
  for i in range(count):
    file = io.BytesIO()
    pixels = random.integers(0, 256, (8 + i, 12, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    kept.append({"image": file.getvalue(), "label": i % 2})
  return Records("set/train", kept, ("a", "b"), 5, **options)


EXAMPLES = {
  "in memory": sources.digits()["train"],
  "squashed": photographs(),
  "cropped": photographs(crops=CROPS),
}


def training(examples, step, rows, words=WORDS, batch_size=8):
  return loading.training_rows(examples, words, batch_size, 1, step, rows)


def assert_same(ours, theirs):
  assert ours.keys() == theirs.keys()
  for key, value in ours.items():
    np.testing.assert_array_equal(value, theirs[key])


@pytest.mark.parametrize("kind", EXAMPLES)
def test_rows_of_any_hosts_and_workers_make_the_batch(kind):
  examples = EXAMPLES[kind]
  whole = training(examples, 7, slice(0, 8))
  for ends in ((0, 4, 8), (0, 3, 5, 8)):
    parts = [
      training(examples, 7, slice(start, stop))
      for start, stop in itertools.pairwise(ends)
    ]
    joined = {key: np.concatenate([p[key] for p in parts]) for key in whole}
    assert_same(whole, joined)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_batch_follows_from_the_run_and_the_step(kind):
  examples = EXAMPLES[kind]
  rows = slice(0, 8)
  once = training(examples, 7, rows)
  other = training(examples, 8, rows)
  assert_same(once, training(examples, 7, rows))
  assert (once["image"] != other["image"]).any()
  again = training(examples, 7, rows, WORDS + np.uint32(1))
  assert (once["image"] != again["image"]).any()


def test_an_example_is_cropped_anew_every_time_it_comes():
  alone = photographs(1, crops=CROPS)
  batch = training(alone, 0, slice(0, 8))
  assert len(np.unique(batch["box"], axis=0)) == 8
  assert len(np.unique(batch["image"], axis=0)) == 8


def test_the_shape_is_that_of_what_comes():
  shapes = {
    kind: (loading.shape(examples), loading.shape(examples, training=False))
    for kind, examples in EXAMPLES.items()
  }
  assert shapes == {
    "in memory": ((8, 8, 3), (8, 8, 3)),
    "squashed": ((5, 5, 3), (5, 5, 3)),
    "cropped": ((6, 6, 3), (4, 4, 3)),
  }
  for kind, (shown, evaluated) in shapes.items():
    rows = training(EXAMPLES[kind], 0, slice(0, 2))
    assert rows["image"].shape == (2, *shown)
    rows = loading.evaluation_rows(EXAMPLES[kind], 2, 0, slice(0, 2))
    assert rows["image"].shape == (2, *evaluated)


@pytest.mark.parametrize("kind", ["squashed", "cropped"])
def test_evaluation_has_the_examples_in_order_and_marks_its_fillings(kind):
  examples = EXAMPLES[kind]
  rows = loading.evaluation_rows(examples, 8, 1, slice(0, 8))
  assert rows["mask"].tolist() == [True, True] + [False] * 6
  take = examples.take_crops if kind == "cropped" else examples.take
  for place in range(8):
    alone = take([min(8 + place, 9)])
    np.testing.assert_array_equal(rows["image"][place], alone["image"][0])
