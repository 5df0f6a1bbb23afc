"""A data set put on disk once, or a plain word on what it takes."""

import importlib.util
import io
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from relvit_jax.data import prepare
from relvit_jax.data.builders import catalogue
from relvit_jax.data.builders.catalogue import PreparationError


@pytest.fixture
def without_tensorflow(monkeypatch):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    "find_spec",
    lambda name, *args: None if name == "tensorflow" else find(name, *args),
  )


@pytest.fixture
def with_tensorflow(monkeypatch):
  """As far as the question goes; what would be done with it is not."""
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    "find_spec",
    lambda name, *args: find("sys" if name == "tensorflow" else name, *args),
  )


SHA256_OF_ABC = (
  "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
)
STOCK = [name for name, entry in catalogue.ENTRIES.items() if entry.stock]


@pytest.mark.parametrize("name", STOCK)
def test_stock_data_sets_ask_for_tensorflow(name, tmp_path, without_tensorflow):
  with pytest.raises(
    PreparationError,
    match=f"TensorFlow is not installed, and {name} is .*"
    r"Only this one step does: `pip install 'relvit_jax\[prepare\]'`",
  ):
    prepare.prepare(name, data_dir=tmp_path)
  assert list(tmp_path.iterdir()) == []


def test_the_digits_need_nothing():
  assert "nothing to prepare" in prepare.prepare("digits")


def test_a_parameter_that_means_nothing_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r"data\.folder='x' means nothing"):
    prepare.prepare("digits", folder="x")
  with pytest.raises(ValueError, match=r"there are digits, cifar10"):
    prepare.prepare("cifar", data_dir=tmp_path)


def test_a_folder_and_what_was_left_out(tmp_path):
  file = io.BytesIO()
  Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(file, "PNG")
  root = tmp_path / "mine"
  for name in (
    "others/1.png",
    "train/a/1.png",
    "train/a/2.png",
    "train/b/1.png",
    "val/a/1.png",
  ):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.getvalue())
  (root / "train/b/bad.png").write_bytes(b"")
  (root / "notes.txt").write_text("x")
  options = {"folder": root, "data_dir": tmp_path / "out", "max_skipped": 1}
  first = prepare.prepare("folder", **options).splitlines()
  assert first[0].startswith(f"folder is prepared in {tmp_path / 'out'}")
  assert first[1:] == [
    "  train: 3 images",
    "  validation: 1 images",
    "  2 classes",
    "  1 damaged images left out:",
    "    train/b/bad.png: the file is empty",
    "  1 files that are no images",
    "  1 images outside train/, val/ and test/",
  ]
  again = prepare.prepare("folder", **options).splitlines()
  assert again[0].startswith("folder was already prepared in ")
  assert again[1:] == first[1:]


def test_the_official_archive_stands_in_for_the_download(
  tmp_path, with_tensorflow, monkeypatch
):
  archive = tmp_path / "fetched elsewhere"
  archive.write_bytes(b"abc")
  cifar = tfds.builder_cls("cifar10")
  ((url, info),) = cifar.url_infos.items()
  official = {url: type(info)(3, SHA256_OF_ABC, info.filename)}
  monkeypatch.setattr(cifar, "url_infos", official)
  monkeypatch.setattr(prepare, "_summary", lambda name, made, state: state)
  given = []

  def write(made, *, manual_dir, extract_dir):
    assert manual_dir == extract_dir
    (link,) = pathlib.Path(manual_dir).iterdir()
    given.append((link.name, link.read_bytes()))

  monkeypatch.setattr(catalogue, "write", write)
  prepare.prepare("cifar10", data_dir=tmp_path / "out", archive=archive)
  assert given == [("cifar-10-binary.tar.gz", b"abc")]
  assert list((tmp_path / "out").iterdir()) == []


def test_another_archive_is_refused_with_both_checksums(
  tmp_path, with_tensorflow
):
  archive = tmp_path / "cifar-10-binary.tar.gz"
  archive.write_bytes(b"abc")
  with pytest.raises(
    PreparationError,
    match=r"is not cifar-10-binary\.tar\.gz from https://.*: its SHA-256 is "
    f"{SHA256_OF_ABC}, the official one c4a38c50a1bc.* "
    f"--archive_sha256={SHA256_OF_ABC}",
  ):
    prepare.prepare("cifar10", data_dir=tmp_path, archive=archive)
  assert list(tmp_path.iterdir()) == [archive]


def test_an_archive_that_is_not_there_is_named(tmp_path, with_tensorflow):
  with pytest.raises(PreparationError, match="nowhere is not a file"):
    prepare.prepare("cifar10", data_dir=tmp_path, archive=tmp_path / "nowhere")


def test_what_is_made_of_several_files_takes_no_archive(
  tmp_path, with_tensorflow
):
  (tmp_path / "x").write_bytes(b"x")
  with pytest.raises(
    PreparationError,
    match=r"svhn_cropped is not made of one archive but of extra_32x32\.mat, "
    r"test_32x32\.mat, train_32x32\.mat: put them into --manual_dir",
  ):
    prepare.prepare("svhn_cropped", data_dir=tmp_path, archive=tmp_path / "x")
