"""Evaluation counts every example once, whatever the batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax import config
from relvit_jax.data import feed, sources
from relvit_jax.training import evaluate, partitioning
from relvit_jax.training.stage import Stage

SPLITS = sources.digits()


def scores(batch_size, devices):
  settings = config.load("digits:joint")
  settings.eval_batch_size = batch_size
  mesh = partitioning.make_mesh(devices=jax.devices()[:devices])
  stage = Stage(settings, SPLITS, mesh)
  return stage.evaluate(stage.init(0), SPLITS["test"])


def test_batches_and_devices_do_not_change_the_result():
  whole = scores(500, 1)
  assert set(whole) == {
    "label_top1",
    "label_top5",
    "relation_accuracy",
    "position_accuracy",
  }
  for other in (scores(128, 1), scores(88, 8)):
    for name, value in whole.items():
      np.testing.assert_allclose(other[name], value, rtol=1e-6, err_msg=name)
  # 500 images: each counts a five-hundredth.
  assert whole["label_top1"] * 500 == pytest.approx(
    round(whole["label_top1"] * 500), abs=1e-6
  )


def test_an_oracle_is_right_on_every_example():
  split = SPLITS["test"]

  def oracle(batch):
    """Sums and counts of a model that is wrong on padding alone."""
    right = jnp.asarray(batch["mask"], jnp.float32)
    return {"label_top1": (right.sum(), right.sum())}

  batches = feed.evaluation_batches(split, 64)
  assert evaluate.summarise(map(oracle, batches)) == {"label_top1": 1.0}


def test_sums_of_batches_and_of_dispatches_are_divided_once():
  batches = [
    {"a": (np.float32(1), np.float32(4))},
    {"a": (np.array([2.0, 3.0]), np.array([4.0, 4.0]))},
  ]
  assert evaluate.summarise(batches) == {"a": 0.5}


def test_nothing_to_evaluate_is_refused():
  with pytest.raises(ValueError, match="no batches"):
    evaluate.summarise([])
