"""Grids and windows of Swin's stages, by hand."""

import pytest

from relvit_jax.models import stages


def test_grids_halve_and_windows_shrink_to_the_last_ones():
  grids = stages.stage_grids((224, 224), 4, 4)
  assert grids == [(56, 56), (28, 28), (14, 14), (7, 7)]
  assert stages.window_sizes(grids, 7) == [7, 7, 7, 7]
  assert stages.window_sizes(grids, 14) == [14, 14, 14, 7]
  grids = stages.stage_grids((64, 96), 4, 4)
  assert grids == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_windows_that_fit_fill_every_stage():
  grids = stages.stage_grids((64, 64), 4, 4)
  assert stages.fitting_windows(grids) == [1, 2, 4, 8, 16]
  for size in stages.fitting_windows(grids):
    assert stages.window_sizes(grids, size)[0] == size


@pytest.mark.parametrize("window", [0, 3, 7, 17])
def test_others_are_refused_with_those_that_do(window):
  grids = stages.stage_grids((64, 64), 4, 4)
  with pytest.raises(ValueError, match=rf"={window} .*1, 2, 4, 8, 16 would do"):
    stages.window_sizes(grids, window)


def test_an_image_that_cannot_be_halved_so_often_is_refused():
  with pytest.raises(ValueError, match="=40×64 must be a multiple of 32"):
    stages.stage_grids((40, 64), 4, 4)
