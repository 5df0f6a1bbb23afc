"""Mean and standard deviation of colours, exact and remembered."""

import concurrent.futures
import threading

import numpy as np
import pytest

from relvit_jax.data import splits, statistics


def split(count=1_000, name="noise"):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (count, 4, 6, 3)).astype(np.uint8)
  images[..., 1] //= 2
  return splits.Split(name, images, np.zeros(count, np.int32), ("a",))


def test_they_are_those_of_all_pixels():
  made = split()
  pixels = made.images.reshape(-1, 3) / 255
  mean, std = statistics.measure(made)
  np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-12)
  np.testing.assert_allclose(std, pixels.std(axis=0), rtol=1e-12)


def test_one_colour_has_no_spread():
  made = split()
  made.images[..., 2] = 51
  mean, std = statistics.measure(made)
  assert (mean[2], std[2]) == pytest.approx((0.2, 0))


def test_they_are_measured_once_for_a_split(tmp_path, monkeypatch):
  folder = tmp_path / "colours"
  first = statistics.remembered(split(), folder)
  assert first == statistics.measure(split())
  [path] = folder.iterdir()
  assert "noise: 1000 images of 4×6×3" in path.read_text()
  monkeypatch.setattr(statistics, "measure", None)
  assert statistics.remembered(split(), folder) == first


def test_another_split_is_measured_anew(tmp_path):
  for made in (split(), split(count=999), split(name="other")):
    statistics.remembered(made, tmp_path)
  assert len(list(tmp_path.iterdir())) == 3


def test_several_may_measure_at_once(tmp_path, monkeypatch):
  all_have_begun = threading.Barrier(8, timeout=10)
  measure = statistics.measure

  def slowly(examples):
    all_have_begun.wait()
    return measure(examples)

  monkeypatch.setattr(statistics, "measure", slowly)
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    found = list(
      pool.map(lambda _: statistics.remembered(split(), tmp_path), range(8))
    )
  assert found == [measure(split())] * 8
  assert len(list(tmp_path.iterdir())) == 1
