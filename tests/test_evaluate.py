"""Evaluation counts every example once, whatever the batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax import config
from relvit_jax.data import evaluation_feed, sources
from relvit_jax.training import metrics, partitioning
from relvit_jax.training.stage import Stage

SPLITS = sources.digits()


def scores(batch_size, devices):
  settings = config.load("digits:joint")
  settings.eval_batch_size = batch_size
  mesh = partitioning.make_mesh(devices=jax.devices()[:devices])
  stage = Stage(settings, SPLITS["train"], mesh)
  return stage.evaluate(stage.init(0), SPLITS["test"])


@pytest.mark.long
def test_batches_and_devices_do_not_change_the_result():
  whole = scores(500, 1)
  assert set(whole) == {
    "label_top1",
    "label_top5",
    "relation_accuracy",
    "position_accuracy",
    "loss_label",
    "loss_relation",
    "loss_position",
    "loss_total",
  }
  for other in (scores(128, 1), scores(88, 8)):
    for name, value in whole.items():
      np.testing.assert_allclose(other[name], value, rtol=1e-6, err_msg=name)
  # 500 images: each counts a five-hundredth.
  assert whole["label_top1"] * 500 == pytest.approx(
    round(whole["label_top1"] * 500), abs=1e-6
  )


def test_padding_does_not_count():
  """A model that is right on all images and wrong on the filling."""
  split = SPLITS["test"]
  sums = []
  for batch in evaluation_feed.batches(split, 64):
    told = np.where(batch["mask"], batch["label"], batch["label"] + 1)
    outputs = {"label": jnp.asarray(np.eye(11, dtype=np.float32)[told])}
    labels = {"label": batch["label"]}
    sums.append(metrics.measure(outputs, labels, (4, 4), mask=batch["mask"]))
  assert metrics.means(sums)["label_top1"] == 1
  assert sum(count for _, count in (s["label_top1"] for s in sums)) == 500
