"""The splits of a config: in memory where they fit, with labels where due."""

import pathlib

import jax
import numpy as np
import PIL.Image
import pytest

from relvit_jax import config
from relvit_jax.data.splits import Records, Split
from relvit_jax.training import datasets


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
  """Forty small pictures of two classes, of two sizes."""
  root = tmp_path_factory.mktemp("pictures") / "mine"
  rng = np.random.default_rng(0)
  for name in ("cat", "dog"):
    (root / "train" / name).mkdir(parents=True)
    for i in range(20):
      pixels = rng.integers(0, 256, (10 + i % 2, 8, 3)).astype(np.uint8)
      PIL.Image.fromarray(pixels).save(root / "train" / name / f"{i}.png")
  return [
    f"data.folder={root}",
    f"data.dir={root.parent / 'prepared'}",
    "data.stored_size=16",
  ]


def load(settings, *more):
  return datasets.load(config.load("folder:joint", [*settings, *more]))


def test_what_fits_lies_in_memory(settings):
  loaded = load(settings)
  assert loaded.feed == "resident: 0 MiB of pixels lie on the device"
  for split in loaded.splits.values():
    assert isinstance(split, Split)
    assert split.image_shape == (16, 16, 3)
  assert {tuple(size) for size in loaded.splits["train"].sizes} == {
    (10, 8),
    (11, 8),
  }


def test_what_does_not_fit_is_streamed(settings, monkeypatch):
  class Small:
    def memory_stats(self):
      return {"bytes_limit": 4 * 20_000}

  monkeypatch.setattr(jax, "local_devices", lambda: [Small()])
  loaded = load(settings)
  assert loaded.feed.startswith(
    "streaming: 0 MiB of pixels are more than the 0"
  )
  assert isinstance(loaded.splits["train"], Records)


@pytest.mark.parametrize(
  ("feed", "kind"), [("resident", Split), ("streaming", Records)]
)
def test_the_feed_can_be_forced(settings, feed, kind):
  loaded = load(settings, f"data.feed={feed}")
  assert loaded.feed.startswith(f"{feed}, as data.feed says")
  assert isinstance(loaded.splits["train"], kind)


@pytest.mark.parametrize(
  ("more", "cropped"),
  [
    ((), True),
    (("data.crop_at_decode=True",), True),
    (("data.crop_at_decode=False",), False),
    (("augment.crop=none",), False),
  ],
)
def test_a_stream_of_many_sizes_is_cropped_as_it_is_decoded(
  settings, more, cropped
):
  loaded = load(settings, "data.feed=streaming", *more)
  assert ("; cropped as they are decoded" in loaded.feed) == cropped
  for split in loaded.splits.values():
    if not cropped:
      assert split.crops is None
      continue
    assert (split.crops.size, split.crops.share) == (64, 0.8)
    batch = split.take_crops([0, 1])
    assert batch["image"].shape == (2, 64, 64, 3)


def test_held_out_images_are_in_no_other_part(settings):
  splits = load(settings).splits
  pixels = {
    part: {image.tobytes() for image in split.images}
    for part, split in splits.items()
  }
  assert len(pixels["train"] | pixels["validation"]) == 40
  assert pixels["train"] & pixels["validation"] == set()
  assert pixels["test"] == pixels["validation"]
  assert "there is no test/" in splits["test"].name


def test_labels_are_not_learned_where_there_are_none():
  nameless = Split(
    "loose", np.zeros((2, 4, 4, 3), np.uint8), np.full(2, -1, np.int32), ()
  )
  datasets.check_labels(("relation",), "train", nameless)
  with pytest.raises(ValueError, match=r"learn labels, and loose \(train\)"):
    datasets.check_labels(("label", "relation"), "train", nameless)


def test_colours_are_the_configs_or_measured_and_kept(settings):
  made = config.load("folder:joint", settings)
  train = datasets.load(made).splits["train"]
  mean, std = datasets.colours(made, train)
  pixels = train.images.reshape(-1, 3) / 255
  np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-9)
  np.testing.assert_allclose(std, pixels.std(axis=0), rtol=1e-9)
  assert len(list(pathlib.Path(made.data.dir).glob("relvit_colours/*"))) == 1
  known = config.load("cifar10")
  assert datasets.colours(known, train) == (known.data.mean, known.data.std)


@pytest.mark.parametrize(
  ("more", "memory"),
  [((), 2**30), (("data.feed=streaming",), 0), (("augment.crop=none",), 0)],
)
def test_an_outline_has_the_sizes_of_what_would_be_loaded(
  settings, more, memory, monkeypatch
):
  class Device:
    def memory_stats(self):
      return {"bytes_limit": memory}

  monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
  loaded = load(settings, *more)
  outline = datasets.outline(
    config.load("folder:joint", [*settings, *more]), memory
  )
  assert outline.feed == loaded.feed
  for part, split in loaded.splits.items():
    mine = outline.splits[part]
    assert type(mine) is type(split)
    assert (len(mine), mine.image_shape) == (len(split), split.image_shape)
    assert (mine.name, mine.class_names) == (split.name, split.class_names)
    assert getattr(mine, "crops", None) == getattr(split, "crops", None)


def test_of_what_is_not_prepared_the_outline_is_what_is_known(tmp_path):
  settings = config.load("imagenet100:pretrain", [f"data.dir={tmp_path}"])
  small, large = (
    datasets.outline(settings, memory) for memory in (16e9, 10**12)
  )
  assert isinstance(small.splits["train"], Records)
  assert isinstance(large.splits["train"], Split)
  for outline in (small, large):
    assert len(outline.splits["train"]) == 117_000
    assert len(outline.splits["train"].class_names) == 100
