"""Small parts of the real data sets that may lie beside the clone."""

import io
import pathlib
import tarfile

import PIL.Image
import pytest

from relvit_jax.data import boxes, sources
from relvit_jax.data.builders import catalogue
from relvit_jax.data.builders.tiny_imagenet import TinyImagenet

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


def photographs(kept=4):
  """JPEGs of the digits, of many sizes, cropped as they are decoded."""
  source = []
  for i, scan in enumerate(sources.digits()["train"].images[:24]):
    file = io.BytesIO()
    large = PIL.Image.fromarray(scan).resize((20 + i, 30))
    large.save(file, "JPEG", quality=90)
    source.append({"image": file.getvalue(), "label": i % 10})
  crops = boxes.Crops(12, (0.3, 1.0), (3 / 4, 4 / 3), 10, 0.8)
  return sources.Records("scans", source, tuple("0123456789"), kept, crops)


def write_folder(manual, found):
  for name, data in found.items():
    path = manual / "tiny-imagenet-200" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture(scope="session")
def cifar_sample(tmp_path_factory):
  """The first 300 files of the CIFAR-10 copy beside the clone."""
  path = SHARED / "data" / "cifar10-jpeg75.tar.xz"
  if not path.exists():
    pytest.skip("the CIFAR-10 copy is not beside the clone")
  root = tmp_path_factory.mktemp("cifar") / "sample"
  count = 0
  with tarfile.open(path, "r|xz") as archive:
    for member in archive:
      if member.isfile() and count < 300:
        archive.extract(member, root, filter="data")
        count += 1
      elif count >= 300:
        break
  # The archive begins with one of the two parts; train from it.
  first = next(iter(root.iterdir()))
  if first.name != "train":
    first.rename(root / "train")
  return root


@pytest.fixture(scope="session")
def tiny_imagenet_sample(tmp_path_factory):
  """Two classes of the real training images, 60 each, 40 of them to validate.

  The validation archive has its own; reading that far costs seconds.
  """
  path = SHARED / "data" / "tiny-imagenet-200-train-0.tar.xz"
  if not path.exists():
    pytest.skip("the Tiny-ImageNet archive is not beside the clone")
  kept = {}
  with tarfile.open(path, "r|xz") as archive:
    for member in archive:
      if not member.name.endswith(".JPEG"):
        continue
      wnid = member.name.split("/")[2]
      if wnid not in kept and len(kept) == 2:
        break
      images = kept.setdefault(wnid, [])
      if len(images) < 60:
        images.append(archive.extractfile(member).read())
  found = {"wnids.txt": "\n".join(kept).encode()}
  notes = []
  for wnid, data in kept.items():
    for i, image in enumerate(data):
      if i < 40:
        found[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = image
      else:
        found[f"val/images/{wnid}_{i}.JPEG"] = image
        notes.append(f"{wnid}_{i}.JPEG\t{wnid}\t0\t0\t1\t1\n")
  found["val/val_annotations.txt"] = "".join(notes).encode()
  root = tmp_path_factory.mktemp("tiny")
  write_folder(root / "manual", found)
  made = TinyImagenet(data_dir=root / "out")
  catalogue.write(made, manual_dir=root / "manual")
  return root / "out"
