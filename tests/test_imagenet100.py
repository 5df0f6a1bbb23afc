"""Classes of ImageNet by a list, in two forms of folders."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from relvit_jax.data import prepare
from relvit_jax.data.builders import catalogue
from relvit_jax.data.builders.folders import FolderError
from relvit_jax.data.builders.imagenet100 import Imagenet100, read_classes

FISH, FOX, CAT = "n01440764", "n02119022", "n02123045"


def put(root, *names):
  for i, name in enumerate(names):
    file = io.BytesIO()
    Image.fromarray(np.full((5, 7 + i, 3), i, np.uint8)).save(file, "JPEG")
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.getvalue())
  return root


@pytest.fixture
def classes(tmp_path):
  path = tmp_path / "classes.txt"
  path.write_text(f"{FOX}\n{FISH} tench, Tinca tinca\n\n")
  return path


def labels(made, split):
  import tensorflow_datasets as tfds

  source = catalogue.reader(made).as_data_source(
    split, decoders={"image": tfds.decode.SkipDecoding()}
  )
  return sorted(record["label"] for record in source)


LAYOUTS = {
  "ImageNet": ("train", "train", "val"),
  "Kaggle": ("train.X1", "train.X4", "val.X"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_forms_of_folders(tmp_path, classes, layout):
  first, second, validation = LAYOUTS[layout]
  manual = put(
    tmp_path / "manual",
    f"{first}/{FISH}/1.JPEG",
    f"{second}/{FOX}/1.JPEG",
    f"{second}/{FOX}/2.JPEG",
    f"{validation}/{FISH}/1.JPEG",
    f"{validation}/{FOX}/1.JPEG",
    # Not in the list.
    f"{first}/{CAT}/1.JPEG",
  )
  made = Imagenet100(classes=classes, data_dir=tmp_path / "out")
  catalogue.write(made, manual_dir=manual)
  assert made.info.features["label"].names == [FISH, FOX]
  assert labels(made, "train") == [0, 1, 1]
  assert labels(made, "validation") == [0, 1]
  assert labels(made, "train[:67%]") in ([0, 1], [1, 1])


def test_another_list_is_another_data_set(tmp_path, classes):
  made = Imagenet100(classes=classes, data_dir=tmp_path)
  other = tmp_path / "Labels.json"
  other.write_text(json.dumps({FOX: "kit fox", FISH: "tench"}))
  # The same classes in another form and order.
  assert Imagenet100(classes=other, data_dir=tmp_path).data_dir == made.data_dir
  other.write_text(json.dumps({FOX: "kit fox", CAT: "tabby"}))
  assert Imagenet100(classes=other, data_dir=tmp_path).data_dir != made.data_dir
  assert "/imagenet100/2-classes-" in made.data_dir


@pytest.mark.parametrize(
  ("names", "message"),
  [
    (
      [f"train/{FISH}/1.JPEG", f"val/{FISH}/1.JPEG", f"val/{FOX}/1.JPEG"],
      f"1 of 2 classes have no images in train of .*: {FOX}",
    ),
    (
      [f"train/{FISH}/1.JPEG", f"train/{FOX}/1.JPEG", f"val/{FOX}/1.JPEG"],
      f"1 of 2 classes have no images in val of .*: {FISH}",
    ),
    ([f"train/{FISH}/1.JPEG", f"train/{FOX}/1.JPEG"], r"no val/ and no val\.X"),
    (
      [f"train/{FISH}/1.JPEG", f"train.X1/{FOX}/1.JPEG"],
      r"has train and train\.X1: which is it",
    ),
  ],
)
def test_what_is_missing_is_named(tmp_path, classes, names, message):
  manual = put(tmp_path / "manual", *names)
  made = Imagenet100(classes=classes, data_dir=tmp_path / "out")
  with pytest.raises(FolderError, match=message):
    catalogue.write(made, manual_dir=manual)


def test_without_folders_it_says_what_to_put_there(tmp_path, classes):
  with pytest.raises(prepare.PreparationError, match="does not exist or is"):
    prepare.prepare(
      "imagenet100",
      classes=classes,
      data_dir=tmp_path / "out",
      manual_dir=tmp_path / "manual",
    )


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("a.txt", f"{FISH}\nfox\n", "entry 2 is 'fox', not a WordNet number"),
    ("a.txt", f"{FISH}\n{FOX}\n{FISH}\n", f"names {FISH} more than once"),
    ("a.txt", "\n", "names no class"),
    ("a.json", "{", "no JSON object"),
    ("a.json", f'["{FISH}"]', "no JSON object"),
    ("a.json", "7", "no JSON object"),
    (
      "a.json",
      f'{{"{FISH}": "a", "{FISH}": "b"}}',
      f"names {FISH} more than once",
    ),
  ],
)
def test_what_is_no_class_list_is_refused(tmp_path, name, text, message):
  path = tmp_path / name
  path.write_text(text)
  with pytest.raises(FolderError, match=message):
    read_classes(path)


def test_a_list_that_is_not_there_is_named(tmp_path):
  with pytest.raises(FolderError, match=r"nowhere\.txt' cannot be read"):
    read_classes(tmp_path / "nowhere.txt")
