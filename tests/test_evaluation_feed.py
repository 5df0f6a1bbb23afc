"""Evaluation holds every example once."""

import numpy as np
import pytest
from real_images import photographs

from relvit_jax.data import evaluation_feed, sources

SPLITS = sources.digits()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_it_shows_the_middle_of_whole_images(num_workers):
  examples = photographs()
  read = list(evaluation_feed.batches(examples, 16, num_workers))
  assert [batch["mask"].sum() for batch in read] == [16, 8]
  for batch in read:
    assert batch["image"].shape == (16, 10, 10, 3)
    assert batch["image"].dtype == np.uint8
  expected = examples.take_crops(range(24))
  for key, value in expected.items():
    joined = np.concatenate([batch[key] for batch in read])
    np.testing.assert_array_equal(joined[:24], value)
  # The shorter side of the first is 20, of which it shows 16.
  np.testing.assert_allclose(expected["box"][0], [7, 2, 16, 16], atol=1e-5)


def test_batches_hold_every_example_once():
  split = SPLITS["test"]
  read = list(evaluation_feed.batches(split, 128))
  assert {batch["image"].shape for batch in read} == {(128, 8, 8, 3)}
  masks = np.concatenate([batch["mask"] for batch in read])
  labels = np.concatenate([batch["label"] for batch in read])
  assert masks.sum() == 500
  np.testing.assert_array_equal(labels[masks], split.labels)
