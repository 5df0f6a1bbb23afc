"""Data sets by name and split: real pixels, no image in two parts."""

import io
import itertools
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from relvit_jax.data import sources
from relvit_jax.data.builders import catalogue
from relvit_jax.data.builders.folders import ImageBuilder, Item
from relvit_jax.data.images import ImageError

PARTS = {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}
OWN = {"train": "train", "validation": "validation", "test": "test"}
NUMBER = itertools.count()


def png(size=(4, 4)):
  file = io.BytesIO()
  value = next(NUMBER)
  pixels = np.full((*size, 3), (value % 256, value // 256, 0), np.uint8)
  Image.fromarray(pixels).save(file, "PNG")
  return file.getvalue()


class Elsewhere(ImageBuilder, skip_registration=True):
  """As if TFDS had prepared CIFAR-10 on a machine that has TensorFlow."""

  name = "cifar10"
  VERSION = tfds.core.Version("3.0.2")

  def _known_names(self):
    return ["cat", "dog"]

  def _items(self, dl_manager):
    return {
      split: [
        Item(f"{split}{i}", png, ("cat", "dog")[i % 2]) for i in range(count)
      ]
      for split, count in (("train", 20), ("test", 6))
    }


class Older(Elsewhere, skip_registration=True):
  name = "cifar10"
  VERSION = tfds.core.Version("3.0.0")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  place = tmp_path_factory.mktemp("prepared")
  catalogue.write(Elsewhere(data_dir=place))
  return place


@pytest.fixture
def folder(tmp_path):
  root = tmp_path / "mine"
  for name in ("train/a/1", "train/a/2", "train/b/3", "val/a/4", "val/b/5"):
    path = root / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png())
  return root


def test_digits_are_split_in_three_without_overlap():
  splits = sources.digits()
  assert {part: len(split) for part, split in splits.items()} == {
    "train": 1097,
    "validation": 200,
    "test": 500,
  }
  rows = [s.images.reshape(len(s), -1) for s in splits.values()]
  # 1,797 scans, and no two of the set are alike.
  assert len(np.unique(np.concatenate(rows), axis=0)) == 1797


def test_digits_are_uint8_grey_images_of_every_class():
  for split in sources.digits().values():
    assert split.images.dtype == np.uint8
    assert split.images.shape[1:] == (8, 8, 3)
    assert (split.images == split.images[..., :1]).all()
    assert (split.images.min(), split.images.max()) == (0, 255)
    assert set(split.labels) == set(range(10))


def test_digits_are_always_split_alike():
  first, again = sources.digits(), sources.load_splits("digits", OWN)
  for part in first:
    np.testing.assert_array_equal(first[part].images, again[part].images)


def test_a_data_set_of_tfds_is_cut_as_asked(data_dir):
  parts = sources.load_splits("cifar10", PARTS, data_dir=data_dir)
  assert {part: (r.name, len(r)) for part, r in parts.items()} == {
    "train": ("cifar10/train[:90%]", 18),
    "validation": ("cifar10/train[90%:]", 2),
    "test": ("cifar10/test", 6),
  }
  assert parts["test"].class_names == ("cat", "dog")
  whole = sources.load_splits("cifar10", {"train": "train"}, data_dir=data_dir)
  np.testing.assert_array_equal(
    whole["train"].load().images,
    np.concatenate(
      [parts[part].load().images for part in ("train", "validation")]
    ),
  )


def test_every_image_keeps_its_label(data_dir):
  test = sources.load_splits("cifar10", {"test": "test"}, data_dir=data_dir)
  split = test["test"].load()
  # They were numbered as they were written, cats and dogs in turn.
  order = np.argsort(
    split.images[:, 0, 0, 0] + 256 * split.images[:, 0, 0, 1].astype(int)
  )
  assert split.labels[order].tolist() == [0, 1, 0, 1, 0, 1]


def test_an_older_version_is_read_where_there_is_no_newer(tmp_path):
  catalogue.write(Older(data_dir=tmp_path))
  parts = sources.load_splits("cifar10", PARTS, data_dir=tmp_path)
  assert len(parts["train"]) == 18


def test_what_tfds_has_not_prepared_says_how_to(tmp_path):
  with pytest.raises(
    ValueError,
    match=r"'cifar100' is not prepared in .*: `relvit data prepare cifar100`",
  ):
    sources.load_splits("cifar100", PARTS, data_dir=tmp_path)


def test_what_was_prepared_as_tfrecord_is_refused(tmp_path):
  made = Elsewhere(data_dir=tmp_path)
  catalogue.write(made)
  info = pathlib.Path(made.data_dir) / "dataset_info.json"
  info.write_text(info.read_text().replace("array_record", "tfrecord"))
  with pytest.raises(ValueError, match="was prepared as tfrecord"):
    sources.load_splits("cifar10", PARTS, data_dir=tmp_path)


def test_a_folder_is_prepared_when_it_is_asked_for(folder, tmp_path):
  parts = sources.load_splits(
    "folder", OWN, folder=folder, data_dir=tmp_path / "out"
  )
  assert {part: len(records) for part, records in parts.items()} == {
    "train": 3,
    "validation": 2,
    "test": 2,
  }
  assert parts["test"].name.endswith("/validation (there is no test/)")
  assert parts["test"].name.startswith("mine-")
  (folder / "train/b/6.png").write_bytes(png())
  more = sources.load_splits(
    "folder", OWN, folder=folder, data_dir=tmp_path / "out"
  )
  assert len(more["train"]) == 4


def test_images_of_many_sizes_need_a_stored_size(folder, tmp_path):
  (folder / "train/b/6.png").write_bytes(png((9, 5)))
  options = {"folder": folder, "data_dir": tmp_path / "out"}
  parts = sources.load_splits("folder", OWN, **options)
  with pytest.raises(ImageError, match=r"set data\.stored_size"):
    parts["train"].load()
  parts = sources.load_splits("folder", OWN, stored_size=6, **options)
  split = parts["train"].load()
  assert split.images.shape == (4, 6, 6, 3)
  assert sorted(split.sizes.tolist()) == [[4, 4], [4, 4], [4, 4], [9, 5]]


def test_a_copy_that_lacks_images_is_used_only_with_leave(folder, tmp_path):
  (folder / "train/b/6.png").write_bytes(b"")
  options = {"folder": folder, "data_dir": tmp_path / "out"}
  with pytest.raises(ImageError, match=r"train/b/6\.png: the file is empty"):
    sources.load_splits("folder", OWN, **options)
  parts = sources.load_splits("folder", OWN, max_skipped=1, **options)
  assert len(parts["train"]) == 3
  with pytest.raises(
    ImageError,
    match=r"prepared without 1 damaged images, more than data\.max_skipped=0: "
    r"train/b/6\.png",
  ):
    sources.load_splits("folder", OWN, **options)


@pytest.mark.parametrize(
  ("splits", "message"),
  [
    (
      {"train": "trian"},
      r"data\.splits\.train='trian' is no split: there are train \(20\), "
      r"test \(6\), and slices",
    ),
    ({"test": "train[:"}, r"data\.splits\.test='train\[:' is no split"),
    ({"test": "train[5:99]"}, r"data\.splits\.test='train\[5:99\]' is no sp"),
    ({"test": "train[:0%]"}, "holds no image"),
    ({"valid": "test"}, r"data\.splits\.valid is no part; there are train, v"),
    (
      {"train": "train[:95%]", "validation": "train[90%:]"},
      r"data\.splits\.train='train\[:95%\]' and data\.splits\.validation="
      r"'train\[90%:\]' share 1 images",
    ),
    ({"train": "train+test", "test": "test"}, "share 6 images"),
    ({"train": "train", "test": "train[0%:]"}, "share 20 images"),
  ],
)
def test_wrong_splits_are_refused(data_dir, splits, message):
  with pytest.raises(ValueError, match=message):
    sources.load_splits("cifar10", splits, data_dir=data_dir)


def test_two_parts_may_be_the_same_on_purpose(data_dir):
  splits = {"train": "train", "validation": "test", "test": "test"}
  parts = sources.load_splits("cifar10", splits, data_dir=data_dir)
  assert len(parts["validation"]) == len(parts["test"]) == 6


@pytest.mark.parametrize(
  ("name", "splits", "options", "message"),
  [
    ("digit", OWN, {}, r"data\.name='digit' does not exist; there are digits"),
    ("digits", {"train": "train[:9]"}, {}, "must be one of train, validation"),
    ("digits", OWN, {"folder": "x"}, r"data\.folder='x' means nothing to"),
    ("cifar10", OWN, {"classes": "x"}, r"data\.classes='x' means nothing to"),
    ("folder", OWN, {}, r"data\.name='folder' takes data\.folder"),
    ("imagenet100", OWN, {}, r"data\.name='imagenet100' takes data\.classes"),
    ("folder", OWN, {"folder": "/nowhere"}, "/nowhere is not a folder"),
  ],
)
def test_wrong_names_and_parameters_are_refused(name, splits, options, message):
  with pytest.raises(ValueError, match=message):
    sources.load_splits(name, splits, **options)


def test_reading_never_imports_tensorflow(data_dir, tmp_path):
  # Installed, but whoever imports it says so and fails.
  stub = tmp_path / "tensorflow"
  stub.mkdir()
  (stub / "__init__.py").write_text(
    "import os\nos.write(1, b'imported\\n')\nraise ImportError('blocked')\n"
  )
  parts = sources.load_splits("cifar10", PARTS, data_dir=data_dir)
  sent = tmp_path / "records"
  sent.write_bytes(pickle.dumps(parts["test"]))
  code = (
    "import pathlib, pickle, sys\n"
    "sys.path.insert(0, sys.argv[1])\n"
    "from relvit_jax.data import sources\n"
    "heavy = {'tensorflow_datasets', 'grain', 'jax'} & set(sys.modules)\n"
    "print('heavy:', sorted(heavy))\n"
    "parts = sources.load_splits(\n"
    "  'cifar10', {'test': 'test'}, data_dir=sys.argv[2])\n"
    "here = parts['test'].load().images\n"
    "sent = pickle.loads(pathlib.Path(sys.argv[3]).read_bytes())\n"
    "print('same:', (sent.take(range(6))['image'] == here).all())\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code, str(tmp_path), str(data_dir), str(sent)],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.split("\n")[:2] == ["heavy: []", "same: True"]
