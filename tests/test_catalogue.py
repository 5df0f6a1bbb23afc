"""What data sets have a name, and how their copies are written and found."""

import contextlib
import errno
import logging
import pathlib
import subprocess
import sys
from unittest import mock

import pytest
import requests
import tensorflow_datasets as tfds

from relvit_jax.data.builders import catalogue
from relvit_jax.data.builders.image_folder import ImageFolder


def test_every_name_has_a_builder_of_its_name(folder, tmp_path):
  classes = tmp_path / "classes.txt"
  classes.write_text("n01440764\n")
  values = {"folder": folder, "classes": classes}
  names = []
  for name, entry in catalogue.ENTRIES.items():
    if name != "digits":
      given = {key: values[key] for key in entry.takes}
      made = catalogue.builder(name, data_dir=tmp_path, **given)
      assert not catalogue.is_prepared(made)
      assert pathlib.Path(made.data_dir).is_relative_to(tmp_path)
      names.append(made.name)
  assert names == [*list(catalogue.ENTRIES)[1:-1], "image_folder"]


def test_the_digits_are_never_prepared():
  with pytest.raises(ValueError, match="'digits' is never prepared"):
    catalogue.builder("digits")


def test_copies_are_found_where_they_were_written(folder, tmp_path):
  assert catalogue.prepared("folder", tmp_path) == []
  made = catalogue.builder("folder", folder=folder, data_dir=tmp_path)
  catalogue.write(made)
  assert catalogue.is_prepared(made)
  copy = pathlib.Path(made.data_dir)
  assert catalogue.prepared("folder", tmp_path) == [copy]
  assert catalogue.prepared("cifar10", tmp_path) == []
  # What a killed process leaves behind is no copy.
  copy.rename(copy.parent / "incomplete.ABC_1.0.0")
  assert catalogue.prepared("folder", tmp_path) == []


def test_a_reader_needs_the_copy_only(folder, tmp_path):
  made = catalogue.builder("folder", folder=folder, data_dir=tmp_path)
  catalogue.write(made)
  for path in folder.iterdir():
    path.unlink()
  splits = catalogue.reader(made).info.splits
  assert splits["train"].num_examples + splits["validation"].num_examples == 3


def test_what_is_written_is_not_written_again(folder, tmp_path):
  made = catalogue.builder("folder", folder=folder, data_dir=tmp_path)
  catalogue.write(made)
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.array_record*")}
  catalogue.write(made)
  assert before == {p: p.stat().st_mtime_ns for p in before}


def test_of_two_at_once_the_first_to_finish_is_taken_by_both(folder, tmp_path):
  second = catalogue.builder("folder", folder=folder, data_dir=tmp_path)
  prepare = type(second).download_and_prepare

  def overtaken(self, **options):
    if self is second:
      # While it is at work another process finishes.
      catalogue.write(ImageFolder(folder=folder, data_dir=tmp_path))
      raise OSError("Directory not empty")
    return prepare(self, **options)

  with mock.patch.object(ImageFolder, "download_and_prepare", overtaken):
    catalogue.write(second)
  assert catalogue.is_prepared(second)


def failing(error):
  from relvit_jax.data.builders.tiny_imagenet import TinyImagenet

  return mock.patch.object(
    TinyImagenet, "download_and_prepare", side_effect=error
  )


@pytest.mark.parametrize(
  "error",
  [
    requests.exceptions.ConnectionError("no route"),
    tfds.download.DownloadError("no route"),
  ],
)
def test_without_a_network_it_says_what_to_fetch(tmp_path, error):
  made = catalogue.builder("tiny_imagenet", data_dir=tmp_path)
  with (
    failing(error),
    pytest.raises(
      catalogue.PreparationError,
      match=r"tiny_imagenet cannot be downloaded \(no route\): fetch http://.*"
      r"\.zip as tiny-imagenet-200\.zip and put it into --manual_dir",
    ),
  ):
    catalogue.write(made)


@pytest.mark.parametrize(
  "error",
  [
    OSError(errno.ENOSPC, "No space left on device"),
    AssertionError("a bug"),
  ],
)
def test_other_errors_are_what_they_are(tmp_path, error):
  made = catalogue.builder("tiny_imagenet", data_dir=tmp_path)
  with failing(error), pytest.raises(type(error), match=r"No space|a bug"):
    catalogue.write(made)


def test_quiet_ends_with_what_is_inside_it(capsys):
  level = logging.getLogger("absl").level
  with contextlib.suppress(KeyError), catalogue.quiet():
    print("Dataset Unknown size")
    raise KeyError
  assert logging.getLogger("absl").level == level
  print("after")
  assert capsys.readouterr().out == "after\n"


def test_the_module_is_light():
  code = (
    "import sys, relvit_jax.data.builders.catalogue\n"
    "print(sorted({'jax', 'numpy', 'tensorflow_datasets'} & set(sys.modules)))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == "[]"
