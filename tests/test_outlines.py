"""Data sets by their sizes: as TFDS counts them, and as a feed sees them."""

import dataclasses

import numpy as np
import pytest

from relvit_jax.data import boxes, loading, outlines

# The images in all, as `relvit data list` says them.
TOTALS = {
  "cifar10": 60_000,
  "cifar100": 60_000,
  "svhn_cropped": 99_289 + 531_131,
  "oxford_flowers102": 8_189,
  "tiny_imagenet": 110_000,
  "imagenet100": 135_000,
}


def test_the_splits_of_a_data_set_add_up():
  assert {
    name: sum(known.images.values())
    for name, known in outlines.PUBLISHED.items()
  } == TOTALS


@pytest.mark.parametrize(
  ("name", "expression", "count"),
  [
    ("cifar10", "train[:90%]", 45_000),
    ("cifar10", "train[90%:]", 5_000),
    ("cifar10", "train+test", 60_000),
    # TFDS rounds 65,931.3 down and the rest takes what remains.
    ("svhn_cropped", "train[:90%]", 65_931),
    ("svhn_cropped", "train[90%:]", 7_326),
    ("tiny_imagenet", "validation", 10_000),
    ("tiny_imagenet", "train[-7:]", 7),
  ],
)
def test_a_part_has_as_many_images_as_tfds_would_read(name, expression, count):
  parts = outlines.published(name, {"train": expression}, 32, False)
  assert len(parts["train"]) == count


@pytest.mark.parametrize(
  ("name", "expression", "message"),
  [
    ("folder", "train", "data.name='folder' is not prepared here, and only"),
    ("cifar10", "extra", "data.splits.train='extra' is no split: there are "),
    (
      "cifar10",
      "train[:9x%]",
      r"train \(50,000\), test \(10,000\), and",
    ),
  ],
)
def test_what_is_not_known_is_refused(name, expression, message):
  with pytest.raises(ValueError, match=message):
    outlines.published(name, {"train": expression}, 32, False)


OUTLINE = outlines.Outline("x", 7, ("a", "b"), 16, False)


@pytest.mark.parametrize("is_squashed", [False, True])
def test_in_memory_it_takes_no_memory(is_squashed):
  split = dataclasses.replace(OUTLINE, is_squashed=is_squashed).split()
  assert (len(split), split.image_shape) == (7, (16, 16, 3))
  assert split.images.base.nbytes == 1
  batch = split.take(np.arange(2))
  assert {key: value.shape for key, value in batch.items()} == {
    "image": (2, 16, 16, 3),
    "label": (2,),
  } | ({"size": (2, 2)} if is_squashed else {})


def test_on_disk_its_crops_have_a_shape():
  crops = boxes.Crops(8, (0.2, 1.0), (0.75, 1.333), 10, 0.8)
  records = OUTLINE.records(crops)
  assert (len(records), loading.shape(records)) == (7, (8, 8, 3))
