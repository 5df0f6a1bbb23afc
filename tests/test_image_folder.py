"""Any folder as a data set: forms of folders, labels, what is refused."""

import io
import itertools
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from relvit_jax.data import images, sources
from relvit_jax.data.builders import catalogue
from relvit_jax.data.builders.folders import FolderError
from relvit_jax.data.builders.image_folder import ImageFolder

NUMBER = itertools.count()


def png(value, size=(4, 6), mode="RGB"):
  pixels = np.full((*size, 3), value, np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).convert(mode).save(file, "PNG")
  return file.getvalue()


def put(root, *names, data=None):
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(next(NUMBER) % 256) if data is None else data)
  return root


def some(part, *classes, count=3):
  return [f"{part}/{c}/{i}.png" for c in classes for i in range(count)]


@pytest.fixture
def root(tmp_path):
  return tmp_path / "my images"


def prepared(root, **options):
  made = ImageFolder(folder=root, data_dir=root.parent / "out", **options)
  catalogue.write(made)
  return made


def labels(made, split):
  return sorted(record["label"] for record in read(made, split))


def read(made, split):
  import tensorflow_datasets as tfds

  return made.as_data_source(
    split, decoders={"image": tfds.decode.SkipDecoding()}
  )


def test_class_folders_are_labels_in_order(root):
  put(root, *some("train", "dog", "cat"), *some("val", "cat", count=2))
  put(root, "test/dog/1.png")
  made = prepared(root)
  assert made.info.features["label"].names == ["cat", "dog"]
  assert labels(made, "train") == [0, 0, 0, 1, 1, 1]
  assert labels(made, "validation") == [0, 0]
  assert labels(made, "test") == [1]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_the_validation_folder_has_three_names(root, name):
  put(root, *some("train", "a"), *some(name, "a", count=2))
  assert prepared(root).info.splits["validation"].num_examples == 2


def test_files_may_lie_deeper_in_a_class_folder(root):
  put(root, "train/a/images/1.png", "train/a/x/y/2.png", "train/b/3.png")
  put(root, "val/b/images/1.png")
  assert labels(prepared(root), "train") == [0, 0, 1]


def test_bytes_of_an_upright_rgb_image_are_the_file(root):
  data = png(7)
  put(root, "train/a/1.png", "val/a/1.png", data=data)
  assert read(prepared(root), "train")[0]["image"] == data


def test_a_slice_is_a_part_of_the_split(root):
  put(root, *some("train", "a", count=10), "val/a/1.png")
  made = prepared(root)
  whole = [r["image"] for r in read(made, "train")]
  assert [r["image"] for r in read(made, "train[:30%]")] == whole[:3]
  assert [r["image"] for r in read(made, "train[-2:]")] == whole[-2:]


@pytest.mark.parametrize("inside", ["train/", ""])
def test_images_without_classes_have_the_label_minus_one(root, inside):
  put(root, *(f"{inside}{i}.png" for i in range(5)))
  made = prepared(root)
  assert made.info.features["label"].names == []
  assert labels(made, "train+validation") == [-1] * 5
  again = ImageFolder(folder=root, data_dir=root.parent / "out")
  assert catalogue.is_prepared(again)
  assert labels(again, "train") == labels(made, "train")


def test_without_a_validation_folder_a_tenth_is_held_out_by_its_path(root):
  put(root, *some("train", "a", "b", count=100))
  made = prepared(root)
  held = {r["image"] for r in read(made, "validation")}
  rest = {r["image"] for r in read(made, "train")}
  assert len(held) + len(rest) == 200
  assert 10 <= len(held) <= 32
  # A file more does not move the others from one to the other.
  put(root, "train/a/another.png")
  more = prepared(root)
  assert held <= {r["image"] for r in read(more, "validation")}
  assert rest <= {r["image"] for r in read(more, "train")}


@pytest.mark.parametrize("count", [2, 3, 4])
def test_of_few_images_one_is_held_out_and_never_all(root, count):
  put(root, *(f"{i}.png" for i in range(count)))
  splits = prepared(root).info.splits
  assert splits["validation"].num_examples >= 1
  assert splits["train"].num_examples >= 1


def test_a_changed_folder_is_prepared_anew(root):
  put(root, *some("train", "a"), "val/a/1.png")
  first = prepared(root)
  put(root, "train/a/more.png")
  second = ImageFolder(folder=root, data_dir=root.parent / "out")
  assert not catalogue.is_prepared(second)
  assert first.data_dir != second.data_dir
  assert "my_images-" in second.data_dir


def test_an_image_replaced_by_another_of_its_size_is_noticed(root):
  put(root, *some("train", "a"), "val/a/1.png")
  first = prepared(root)
  path = root / "train/a/0.png"
  facts = path.stat()
  os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
  assert ImageFolder(folder=root).data_dir != first.data_dir


def test_other_files_are_ignored_and_counted(root):
  put(root, *some("train", "a"), "val/a/1.png")
  put(root, "README.txt", "train/a/Thumbs.db", "train/.DS_Store", data=b"")
  assert prepared(root).notes["ignored"] == 3


def test_images_outside_the_three_folders_are_counted(root):
  put(root, *some("train", "a"), "val/a/1.png", "extra/1.png", "2.png")
  made = prepared(root)
  assert made.notes["elsewhere"] == 2
  assert made.info.splits["train"].num_examples == 3


def test_sent_to_another_process_it_reads_without_the_folder(root):
  put(root, *some("train", "a"), "val/a/1.png")
  source = read(prepared(root), "train")
  sent = pickle.dumps(source)
  shutil.rmtree(root)
  assert list(pickle.loads(sent)) == list(source)


def test_every_kind_of_image_becomes_rgb(root):
  for mode in ("RGB", "L", "RGBA", "1", "P", "LA", "I;16"):
    put(root, f"train/a/{mode}.png", data=png(255, mode=mode))
  cmyk = io.BytesIO()
  Image.new("CMYK", (6, 4), (0, 0, 0, 0)).save(cmyk, "JPEG")
  put(root, "train/a/cmyk.JPG", data=cmyk.getvalue())
  put(root, "val/a/1.png")
  decoded = [
    images.decode(record["image"], "x")
    for record in read(prepared(root), "train")
  ]
  assert [image.shape for image in decoded] == [(4, 6, 3)] * 8
  # PIL's "I;16" of 255 is 255 of 65,535: black.
  assert sorted(int(image.mean()) for image in decoded) == [0] + [255] * 7


DAMAGED = {"empty": b"", "cut": png(3, (64, 64))[:60], "text": b"<html>"}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_image_stops_it_by_name(root, case):
  put(root, *some("train", "a"), "val/a/1.png")
  put(root, "train/a/bad.png", data=DAMAGED[case])
  with pytest.raises(images.ImageError, match=r"train/a/bad\.png: "):
    prepared(root)
  assert not catalogue.is_prepared(
    ImageFolder(folder=root, data_dir=root.parent / "out")
  )


def test_damaged_images_are_left_out_up_to_a_number_and_remembered(root):
  put(root, *some("train", "a"), *some("val", "a"))
  put(root, "train/a/bad.png", "val/a/bad.png", data=b"")
  with pytest.raises(images.ImageError, match=r"2 images .* max_skipped=1"):
    prepared(root, max_skipped=1)
  made = prepared(root, max_skipped=2)
  assert made.info.splits["train"].num_examples == 3
  assert made.info.splits["validation"].num_examples == 3
  assert made.notes["skipped"] == [
    "train/a/bad.png: the file is empty",
    "val/a/bad.png: the file is empty",
  ]


def test_a_split_of_nothing_but_damaged_images_is_refused(root):
  put(root, *some("train", "a"))
  put(root, "val/a/bad.png", data=b"")
  with pytest.raises(images.ImageError, match="no image of 1 is left"):
    prepared(root, max_skipped=5)


REFUSED = {
  "unknown label": (
    ["train/a/1.png", "train/b/1.png", "val/c/1.png"],
    r"unknown label 'c' of .*val/c/1\.png: train/ has the classes a, b",
  ),
  "labels without classes": (
    ["train/1.png", "val/c/1.png"],
    "unknown label 'c' .* train/ has none",
  ),
  "loose among classes": (
    ["train/a/1.png", "train/2.png"],
    "train mixes class folders and images without: 1 images, train/2.png",
  ),
  "loose in val": (
    ["train/a/1.png", "val/1.png"],
    "val/1.png lies outside the class folders of val/",
  ),
  "two for validation": (
    ["train/a/1.png", "val/a/1.png", "valid/a/1.png"],
    "has val and valid: which is for validation",
  ),
  "nothing": (["train/a/list.txt"], "no images in .*train"),
  "classes without train": (
    ["a/1.png", "b/1.png"],
    r"no images in .*my images: they belong in train/<class>/.* 2 images else",
  ),
  "loose beside other folders": (
    ["1.png", "2.png", "more/3.png"],
    "mixes images and folders of images, more/3.png for one",
  ),
  "an empty class": (
    ["train/a/1.png", "train/b/list.txt"],
    "no images in 1 class folders of .*train: b",
  ),
  "an empty test": (
    ["train/a/1.png", "val/a/1.png", "test/a/list.txt"],
    "no images in .*test",
  ),
  "one image": (["train/a/1.png"], "has one image to train on"),
  "a name TFDS would change": (
    ["train/a /1.png", "train/b/1.png"],
    "the class 'a ' must not",
  ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_forms_are_refused(root, case):
  names, message = REFUSED[case]
  put(root, *names)
  with pytest.raises(FolderError, match=message):
    ImageFolder(folder=root, data_dir=root.parent / "out")


def test_an_empty_folder_is_named(tmp_path):
  with pytest.raises(FolderError, match=f"no images in {tmp_path}"):
    ImageFolder(folder=tmp_path)


def test_real_photographs_of_cifar10(cifar_sample):
  parts = sources.load_splits(
    "folder",
    {"train": "train", "validation": "validation", "test": "test"},
    folder=cifar_sample,
    data_dir=cifar_sample.parent / "out",
  )
  assert len(parts["train"]) + len(parts["validation"]) == 300
  assert parts["train"].image_shape == (32, 32, 3)
  split = parts["validation"].load()
  assert 20 < split.images.mean() < 235
  assert set(split.labels) <= set(range(len(split.class_names)))


def test_no_bucket_is_asked_about_a_private_folder(root, monkeypatch):
  def asked(name):
    raise AssertionError(f"a bucket was asked about {name}")

  from tensorflow_datasets.core.utils import gcs_utils

  monkeypatch.setattr(gcs_utils, "gcs_dataset_info_files", asked)
  put(root, *some("train", "a"))
  made = ImageFolder(folder=root, data_dir=root.parent / "out")
  assert made.info.full_name.startswith("image_folder/")
