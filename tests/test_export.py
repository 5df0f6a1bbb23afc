"""What is written as a folder is read back as the same data set."""

import dataclasses

import numpy as np

from relvit_jax.data import export, sources

DIGITS = sources.digits()


def test_a_folder_of_the_digits_is_read_as_the_digits(tmp_path):
  few = {
    part: dataclasses.replace(
      split, images=split.images[:40], labels=split.labels[:40]
    )
    for part, split in DIGITS.items()
  }
  export.write(few, tmp_path / "digits")
  parts = {part: part for part in few}
  read = sources.load_splits(
    "folder", parts, folder=tmp_path / "digits", data_dir=tmp_path / "prepared"
  )
  for part, split in few.items():
    there = read[part].load()
    assert there.class_names == split.class_names
    # Read class by class, or in an order of TFDS's own.
    assert pixels(there) == pixels(split)


def pixels(split):
  pairs = zip(split.images, split.labels, strict=True)
  return sorted((int(label), image.tobytes()) for image, label in pairs)


def test_images_without_labels_lie_in_the_part_itself(tmp_path):
  split = sources.Split(
    name="two",
    images=np.zeros((2, 4, 4, 3), np.uint8),
    labels=np.full(2, -1, np.int32),
    class_names=(),
  )
  export.write({"train": split}, tmp_path)
  names = sorted(path.name for path in (tmp_path / "train").iterdir())
  assert names == ["00000.png", "00001.png"]
