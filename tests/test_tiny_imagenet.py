"""Tiny-ImageNet: the zip, the unpacked folder, and broken ones of both."""

import contextlib
import hashlib
import io
import itertools
import re
import zipfile
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from real_images import write_folder

from relvit_jax.data import prepare, sources
from relvit_jax.data.builders import catalogue, tiny_imagenet
from relvit_jax.data.builders.folders import FolderError
from relvit_jax.data.builders.tiny_imagenet import TinyImagenet

# Listed in another order than the ascending one, as in the real file.
WNIDS = ("n02124075", "n01443537", "n01629819")


def jpeg(number):
  file = io.BytesIO()
  pixels = np.full((64, 64, 3), number * 8, np.uint8)
  Image.fromarray(pixels).save(file, "JPEG")
  return file.getvalue()


def tiny():
  """Three classes, two images each and one to validate: name → bytes."""
  found = {"wnids.txt": "\n".join(WNIDS).encode(), "words.txt": b"n0\tx\n"}
  number = itertools.count()
  notes = []
  for i, wnid in enumerate(WNIDS):
    for j in range(2):
      found[f"train/{wnid}/images/{wnid}_{j}.JPEG"] = jpeg(next(number))
    found[f"train/{wnid}/{wnid}_boxes.txt"] = b"0\t0\t63\t63\n"
    found[f"val/images/val_{i}.JPEG"] = jpeg(20 + i)
    notes.append(f"val_{i}.JPEG\t{wnid}\t0\t0\t63\t63\n")
  found["val/val_annotations.txt"] = "".join(notes).encode()
  found["test/images/test_0.JPEG"] = jpeg(30)
  return found


def write_zip(manual, found, **others):
  manual.mkdir(exist_ok=True)
  path = manual / "tiny-imagenet-200.zip"
  with zipfile.ZipFile(path, "w") as archive:
    for name, data in found.items():
      archive.writestr(f"tiny-imagenet-200/{name}", data)
    for name, data in others.items():
      archive.writestr(name, data)
  return path


def trusted(path):
  """As if the zip were the official one."""
  data = path.read_bytes()
  info = tiny_imagenet.checksums.UrlInfo(
    len(data), hashlib.sha256(data).hexdigest(), path.name
  )
  return mock.patch.object(TinyImagenet, "url_infos", {tiny_imagenet.URL: info})


def records(made, split):
  return list(catalogue.reader(made).as_data_source(split, decoders=skip()))


def skip():
  import tensorflow_datasets as tfds

  return {"image": tfds.decode.SkipDecoding()}


def check(made):
  found = tiny()
  assert made.info.features["label"].names == sorted(WNIDS)
  by_bytes = {data: name for name, data in found.items()}
  for split, count in (("train", 6), ("validation", 3)):
    read = records(made, split)
    assert len(read) == count
    for record in read:
      name = by_bytes[record["image"]]
      if split == "train":
        wnid = name.split("/")[1]
      else:
        wnid = WNIDS[int(re.search(r"(\d)\.JPEG", name)[1])]
      assert sorted(WNIDS)[record["label"]] == wnid


def test_the_folder_is_read_with_classes_in_ascending_order(tmp_path):
  write_folder(tmp_path / "manual", tiny())
  made = TinyImagenet(data_dir=tmp_path / "out")
  catalogue.write(made, manual_dir=tmp_path / "manual")
  check(made)


def test_the_zip_is_read_where_it_lies_and_not_unpacked(tmp_path):
  path = write_zip(tmp_path / "manual", tiny())
  with trusted(path):
    made = TinyImagenet(data_dir=tmp_path / "out")
    catalogue.write(made, manual_dir=tmp_path / "manual")
  check(made)
  assert not list(tmp_path.rglob("*.JPEG"))


def test_another_zip_than_the_official_one_is_refused(tmp_path):
  write_zip(tmp_path / "manual", tiny())
  with pytest.raises(prepare.PreparationError, match="has wrong checksum"):
    prepare.prepare(
      "tiny_imagenet",
      data_dir=tmp_path / "out",
      manual_dir=tmp_path / "manual",
    )


def test_an_archive_with_consent_carries_its_checksum_in_the_names(tmp_path):
  path = write_zip(tmp_path / "manual", tiny()).rename(tmp_path / "mine.zip")
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  options = {"data_dir": tmp_path / "out", "archive": path}
  with pytest.raises(prepare.PreparationError, match=f"_sha256={digest}"):
    prepare.prepare("tiny_imagenet", **options)
  with pytest.raises(prepare.PreparationError, match="its SHA-256 is"):
    prepare.prepare("tiny_imagenet", **options, archive_sha256="0" * 64)
  said = prepare.prepare("tiny_imagenet", **options, archive_sha256=digest)
  assert "  train: 6 images\n  validation: 3 images\n  3 classes" in said
  check(TinyImagenet(data_dir=tmp_path / "out"))
  parts = sources.load_splits(
    "tiny_imagenet", {"train": "train"}, data_dir=tmp_path / "out"
  )
  assert parts["train"].name == (
    f"tiny_imagenet/train, not the official archive but {digest[:12]}…"
  )
  assert not list((tmp_path / "out").glob("unpacked.*"))


BROKEN = {
  "a class is missing": (
    lambda x: {n: d for n, d in x.items() if WNIDS[0] not in n},
    f"disagree on 1 classes: {WNIDS[0]}",
  ),
  "a training image is missing": (
    lambda x: {n: d for n, d in x.items() if f"{WNIDS[1]}_1.JPEG" not in n},
    f"train/ of .* is incomplete: {WNIDS[1]} has 1 images, other classes 2",
  ),
  "a validation image is missing": (
    lambda x: {n: d for n, d in x.items() if "val_2" not in n},
    r"disagree on 1 images: val/images/val_2\.JPEG",
  ),
  "a validation image has no note": (
    lambda x: x | {"val/images/val_9.JPEG": jpeg(1)},
    r"disagree on 1 images: val/images/val_9\.JPEG",
  ),
  "an unknown label": (
    lambda x: (
      x
      | {
        "val/val_annotations.txt": x["val/val_annotations.txt"].replace(
          WNIDS[0].encode(), b"n99999999"
        )
      }
    ),
    r"unknown labels \['n99999999'\]",
  ),
  "no class list": (
    lambda x: {n: d for n, d in x.items() if n != "wnids.txt"},
    "no wnids.txt in",
  ),
  "no notes": (
    lambda x: {n: d for n, d in x.items() if "annotations" not in n},
    "no val/val_annotations.txt in",
  ),
}


@pytest.mark.parametrize("write", [write_folder, write_zip])
@pytest.mark.parametrize("case", BROKEN)
def test_an_incomplete_copy_is_refused(tmp_path, write, case):
  change, message = BROKEN[case]
  path = write(tmp_path / "manual", change(tiny()))
  made = TinyImagenet(data_dir=tmp_path / "out")
  official = trusted(path) if path else contextlib.nullcontext()
  with official, pytest.raises(FolderError, match=message):
    catalogue.write(made, manual_dir=tmp_path / "manual")
  assert not catalogue.is_prepared(made)


@pytest.mark.parametrize(
  "name", ["../escaped.JPEG", "/etc/x.JPEG", "tiny-imagenet-200/../../x"]
)
def test_a_zip_that_reaches_out_of_its_folder_is_refused(tmp_path, name):
  path = write_zip(tmp_path / "manual", tiny(), **{name: b"x"})
  with trusted(path), pytest.raises(FolderError, match="outside its folder"):
    catalogue.write(
      TinyImagenet(data_dir=tmp_path / "out"), manual_dir=tmp_path / "manual"
    )


def test_a_member_that_would_unpack_to_too_much_is_refused(tmp_path):
  path = write_zip(tmp_path / "manual", tiny())
  with (
    trusted(path),
    mock.patch.object(tiny_imagenet, "_MAX_BYTES", 500),
    pytest.raises(FolderError, match="would unpack to"),
  ):
    catalogue.write(
      TinyImagenet(data_dir=tmp_path / "out"), manual_dir=tmp_path / "manual"
    )


def test_what_is_no_zip_is_named(tmp_path):
  (tmp_path / "manual").mkdir()
  path = tmp_path / "manual" / "tiny-imagenet-200.zip"
  path.write_bytes(b"<html>not found</html>")
  with trusted(path), pytest.raises(FolderError, match="is no zip"):
    catalogue.write(
      TinyImagenet(data_dir=tmp_path / "out"), manual_dir=tmp_path / "manual"
    )


def test_real_photographs_of_tiny_imagenet(tiny_imagenet_sample):
  parts = sources.load_splits(
    "tiny_imagenet",
    {"train": "train[:90%]", "validation": "train[90%:]", "test": "validation"},
    data_dir=tiny_imagenet_sample,
  )
  lengths = {part: len(records) for part, records in parts.items()}
  assert lengths == {"train": 72, "validation": 8, "test": 40}
  test = parts["test"].load()
  assert test.images.shape == (40, 64, 64, 3)
  assert np.bincount(test.labels).tolist() == [20, 20]
  # Photographs: neither grey noise nor one colour.
  assert 30 < test.images.mean() < 220
  assert test.images.std(axis=(1, 2, 3)).min() > 5
