"""Splits: real pixels, no image in two of them."""

import numpy as np
import pytest

from relvit_jax.data import sources


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
  first, again = sources.digits(), sources.digits()
  for part in first:
    np.testing.assert_array_equal(first[part].images, again[part].images)


def test_statistics_are_those_of_the_pixels():
  images = np.zeros((2, 1, 1, 3), np.uint8)
  images[1] = [255, 51, 0]
  split = sources.Split("two", images, np.zeros(2, np.int32), ("a",))
  mean, std = split.statistics()
  np.testing.assert_allclose(mean, [0.5, 0.1, 0], atol=1e-7)
  np.testing.assert_allclose(std, [0.5, 0.1, 0], atol=1e-7)


def test_a_blank_split_shows_one_grey_and_keeps_its_labels():
  test = sources.digits()["test"]
  nothing = sources.blank(test)
  assert len(np.unique(nothing.images)) == 1
  assert abs(int(nothing.images[0, 0, 0, 0]) - test.images.mean()) < 1
  np.testing.assert_array_equal(nothing.labels, test.labels)


def test_an_unknown_data_set_is_refused():
  with pytest.raises(ValueError, match=r"data.name='digit' .* digits"):
    sources.load("digit")
