"""The curves of a work directory are those of its log."""

import numpy as np
import pytest

from relvit_jax.analysis import run_curves
from relvit_jax.training import logs

pytestmark = pytest.mark.long


def test_each_metric_has_a_panel_with_both_splits(joint_run):
  figure = run_curves.figure(joint_run)
  titles = [axes.get_title() for axes in figure.axes]
  assert titles == [
    "loss",
    "label (dotted: chance)",
    "relation (dotted: chance)",
    "position (dotted: chance)",
  ]
  loss, label = figure.axes[:2]
  training, validation = loss.lines
  assert validation.get_label() == "validation"
  for line, split in ((training, "train"), (validation, "validation")):
    records = [r for r in logs.read(joint_run) if r["split"] == split]
    np.testing.assert_array_equal(
      line.get_xdata(), [r["step"] for r in records]
    )
    values = [r["loss_total"] for r in records]
    np.testing.assert_allclose(np.asarray(line.get_ydata()), values)
  chance = label.lines[-1]
  np.testing.assert_allclose(np.asarray(chance.get_ydata()), 10)


def test_no_panel_stays_empty(pretrain_run):
  figure = run_curves.figure(pretrain_run)
  assert len(figure.axes) == 3
  assert all(axes.lines for axes in figure.axes)


def test_a_folder_without_a_run_is_refused(tmp_path):
  with pytest.raises(ValueError, match="no run began there"):
    run_curves.figure(tmp_path)
