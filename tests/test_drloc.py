"""Dense relative localisation: pairs, targets, losses by hand and official."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augment_properties import keys
from flax import nnx

from relvit_jax.interop import torch_official
from relvit_jax.models import heads
from relvit_jax.training import drloc, objectives

CASES = [
  (mode, use_abs) for mode in ("l1", "ce", "cbr") for use_abs in (True, False)
]


@pytest.mark.parametrize(("mode", "use_abs"), CASES)
def test_the_official_head_and_loss(reference, mode, use_abs):
  archive = reference("drloc")
  case = f"{mode}_{'abs' if use_abs else 'signed'}"
  head = heads.DenseRelativeLocalisation(
    32, (7, 7), mode, use_abs, rngs=nnx.Rngs(0)
  )
  prefix = f"{case}/shape/"
  shapes = {
    name.removeprefix(prefix): shape
    for name, shape in archive.items()
    if name.startswith(prefix)
  }
  official = {
    name: np.random.default_rng([int(archive["seed"]), i])
    .normal(0, 0.05, shapes[name])
    .astype(np.float32)
    for i, name in enumerate(sorted(shapes))
  }
  torch_official.load_state_dict(head, official)
  first, second = (
    jnp.asarray(archive[end], jnp.int32) for end in ("first", "second")
  )
  prediction = head(jnp.asarray(archive["tokens"]), first, second)
  np.testing.assert_allclose(prediction, archive[f"{case}/pred"], atol=1e-5)
  np.testing.assert_array_equal(
    drloc.targets(first, second, (7, 7), use_abs), archive[f"{case}/target"]
  )
  loss = objectives.drloc(prediction, first, second, (7, 7), mode, use_abs)
  np.testing.assert_allclose(loss, archive[f"{case}/loss"], atol=1e-5)


# On a grid of 3 × 4: from the first patch (0, 3) to the second (2, 1), and
# from a patch to itself.
FIRST = np.array([[[0, 3], [1, 1]]])
SECOND = np.array([[[2, 1], [1, 1]]])
SIZE = (3, 4)


def test_targets_are_differences_of_rows_and_columns():
  np.testing.assert_array_equal(
    drloc.targets(FIRST, SECOND, SIZE), [[2, 2], [0, 0]]
  )
  # Sides - 1, here 2 and 3, come on top of those with a sign.
  np.testing.assert_array_equal(
    drloc.targets(FIRST, SECOND, SIZE, use_abs=False),
    [[-2 + 2, 2 + 3], [2, 3]],
  )


def loss(prediction, mode="l1", use_abs=True, **keywords):
  return objectives.drloc(
    jnp.asarray(prediction, jnp.float32),
    FIRST,
    SECOND,
    SIZE,
    mode,
    use_abs,
    **keywords,
  )


def test_l1_is_the_mean_error_in_cells_or_in_shares_of_the_side():
  assert loss([[1, 2], [0, 3]]) == (1 + 0 + 0 + 3) / 4
  assert loss([[0, 5], [2, 3]], use_abs=False) == 0
  assert loss([[2 / 3, 2 / 4], [0, 1]], normalise_targets=True) == 1 / 4
  signed = loss(
    [[-2 / 3, 2 / 4], [0, 0]], use_abs=False, normalise_targets=True
  )
  np.testing.assert_allclose(signed, 0, atol=1e-7)


def test_ce_knowing_nothing_costs_the_logarithm_of_the_classes_twice():
  np.testing.assert_allclose(
    loss(np.zeros((2, 4, 2)), "ce"), 2 * np.log(4), rtol=1e-6
  )
  np.testing.assert_allclose(
    loss(np.zeros((2, 7, 2)), "ce", use_abs=False), 2 * np.log(7), rtol=1e-6
  )


def test_cbr_is_the_error_of_the_expected_class_over_its_variance():
  # Evenly spread over 0..3: mean 1.5, variance 1.25; targets 2, 2, 0, 0.
  axis = (0.25 + 2.25) / 2 / 1.25 + 0.001 * np.log(1.25)
  np.testing.assert_allclose(
    loss(np.zeros((2, 4, 2)), "cbr"), 2 * axis, rtol=1e-5
  )


@pytest.mark.parametrize("mode", ["ce", "cbr"])
def test_knowing_the_classes_costs_nothing_but_certainty(mode):
  wanted = np.asarray(drloc.targets(FIRST, SECOND, SIZE))
  scores = 50 * (wanted[:, None] == np.arange(4)[None, :, None])
  # Variance 0 is as cheap as it gets: 0.001 · log 1e-8 an axis.
  floor = 0 if mode == "ce" else 2 * 0.001 * np.log(1e-8)
  np.testing.assert_allclose(loss(scores, mode), floor, atol=1e-6)


def test_pairs_are_drawn_evenly_with_replacement_by_the_key_of_an_image():
  draw = jax.jit(lambda keys: drloc.draw_pairs(keys, 40, SIZE))
  first, second = (np.asarray(ends) for ends in draw(keys(120)))
  assert first.shape == second.shape == (120, 40, 2)
  for ends in (first, second):
    # Of 4800; 400 for each of 12 patches, four standard deviations are 77.
    counts = np.bincount(ends[..., 0].ravel() * 4 + ends[..., 1].ravel())
    assert len(counts) == 12
    assert np.abs(counts - 400).max() < 77
  # Both ends alike: 400 of 4800 pairs are one patch with itself.
  same = (first == second).all(-1).sum()
  assert abs(same - 400) < 77
  mixed = np.random.default_rng(0).permutation(120)
  np.testing.assert_array_equal(draw(keys(120)[mixed])[0], first[mixed])


def test_the_weight_rises_and_falls_in_straight_lines():
  # The published schedule, an epoch a step: at 100 it is 200 / 280.
  schedule = drloc.weight_schedule(0.5, 300, 20)
  steps = [0, 1, 10, 20, 100, 160, 300, 400]
  shares = [0, 0.05, 0.5, 1, 5 / 7, 0.5, 0, 0]
  np.testing.assert_allclose(
    [schedule(step) for step in steps], 0.5 * np.array(shares), rtol=1e-6
  )


def test_without_warm_up_the_weight_begins_at_its_height():
  assert drloc.weight_schedule(2.0, 10)(0) == 2.0


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: loss(np.zeros((2, 2)), "l2"), "mode='l2' does not exist"),
    (
      lambda: loss(np.zeros((2, 3, 2)), "ce"),
      r"shape \(2, 3, 2\) must be \(2, 4, 2\)",
    ),
    (lambda: loss(np.zeros((1, 2))), r"shape \(1, 2\) must be \(2, 2\)"),
    (
      lambda: loss(np.zeros((2, 4, 2)), "ce", normalise_targets=True),
      "normalise_targets=True needs mode='l1'",
    ),
    (
      lambda: drloc.targets(FIRST, SECOND[:, :1], SIZE),
      r"shapes \(1, 2, 2\) and \(1, 1, 2\), must both be \[B, m, 2\]",
    ),
    (
      lambda: drloc.draw_pairs(keys(1), 0, SIZE),
      "num_pairs=0 must be at least 1",
    ),
    (
      lambda: drloc.weight_schedule(0.5, 20, 20),
      "warmup_steps=20 must be from 0 to below total_steps=20",
    ),
    (
      lambda: drloc.weight_schedule(-1.0, 20),
      "weight=-1.0 must not be negative",
    ),
  ],
)
def test_what_cannot_be_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
