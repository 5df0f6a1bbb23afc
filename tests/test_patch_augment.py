"""What happens to patches, each on its own, and where they come to stand."""

import collections
import itertools

import augment_properties
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augment_properties import keys, numbered

from relvit_jax import grid
from relvit_jax.data import augment, patch_augment


def colourful(batch=3, size=8):
  shape = (batch, size, size, 3)
  return jnp.asarray(
    np.random.default_rng(0).uniform(0.1, 0.6, shape), jnp.float32
  )


# Compiled as a whole: much quicker than operation by operation.
mega_cuts = jax.jit(
  patch_augment.mega_cuts,
  static_argnames=("grid_size", "side", "same_cuts"),
)
mega_patches = jax.jit(
  patch_augment.mega_patches,
  static_argnames=("patch_size", "side", "same_cuts", "antialias"),
)
crop_patches = jax.jit(patch_augment.crop_patches, static_argnums=2)


@jax.jit
def mega(keys, images):
  return patch_augment.mega_patches(keys, images, 2, 3)


@jax.jit
def crop(keys, images):
  return patch_augment.crop_patches(keys, images, 4)


@jax.jit
def jitter(keys, images):
  return patch_augment.jitter_patches(keys, images, 4)


@jax.jit
def grey(keys, images):
  return patch_augment.grey_patches(keys, images, 4, 0.5)


@jax.jit
def permute(keys, images):
  return patch_augment.permute_patches(keys, images, 4)[0]


RANDOM = pytest.mark.parametrize("change", [mega, crop, jitter, grey, permute])


@RANDOM
def test_an_image_is_changed_by_its_key_alone(change):
  augment_properties.check_keys_alone_decide(change, colourful(16))


@RANDOM
def test_devices_share_a_batch_without_a_word(change):
  augment_properties.check_devices_say_nothing(change, colourful(16))


@pytest.mark.parametrize("change", [crop, jitter, grey])
def test_a_patch_does_not_see_its_neighbours(change):
  images = colourful(16)
  changed = images.at[:, :4, :4].set(images[:, :4, :4] + 0.3)
  before, after = (
    grid.patchify(change(keys(16), each), 4) for each in (images, changed)
  )
  np.testing.assert_array_equal(after[:, 1:], before[:, 1:])
  assert (after[:, 0] != before[:, 0]).any()


@pytest.mark.parametrize("change", [mega, crop, jitter, grey])
def test_bytes_and_shares_are_changed_alike(change):
  images = numbered(16)
  np.testing.assert_allclose(
    change(keys(16), images),
    change(keys(16), augment.to_float(images)),
    rtol=1e-5,
  )


def test_all_sets_of_cuts_are_equally_likely():
  """The 15 ways to cut 7 patches into 5 parts, as the paper's side 5."""
  rows, columns = mega_cuts(keys(4500), (7, 7), 5)
  ways = list(itertools.combinations(range(1, 7), 4))
  for cuts in (rows, columns):
    counts = collections.Counter(map(tuple, np.asarray(cuts).tolist()))
    assert sorted(counts) == ways
    # 300 each; four standard deviations are 67.
    assert max(abs(count - 300) for count in counts.values()) < 67
  both = np.concatenate([rows, columns], axis=1)
  assert len(np.unique(both, axis=0)) == 15 * 15


def test_the_official_cuts_are_the_same_on_both_axes():
  rows, columns = mega_cuts(keys(50), (7, 7), 5, same_cuts=True)
  np.testing.assert_array_equal(rows, columns)
  assert len(np.unique(rows, axis=0)) > 5


@pytest.mark.parametrize(
  ("side", "row_cuts", "column_cuts"), [(1, [], []), (3, [1, 2], None)]
)
def test_where_there_is_no_choice_there_is_one_set(side, row_cuts, column_cuts):
  rows, columns = mega_cuts(keys(9), (3, 5), side)
  np.testing.assert_array_equal(rows, [row_cuts] * 9)
  if column_cuts is None:
    assert len(np.unique(columns, axis=0)) > 1
  else:
    np.testing.assert_array_equal(columns, [column_cuts] * 9)


@pytest.mark.parametrize("options", [{}, {"same_cuts": True}])
@pytest.mark.parametrize("antialias", [True, False])
def test_mega_patches_show_the_cuts_that_are_drawn(options, antialias):
  images = colourful(4)
  shown = mega_patches(keys(4), images, 2, 3, antialias=antialias, **options)
  cuts = mega_cuts(keys(4), (4, 4), 3, **options)
  np.testing.assert_allclose(
    shown, grid.mega_patches(images, *cuts, 2, antialias=antialias), rtol=1e-5
  )


# The parts of 3×3 pixels of a patch of 4×4, whose pixel i is 0.7·i modulo 1.1,
# enlarged again by torchvision 0.28's resized_crop.
PARTS = {
  (0, 0): [
    [0, 0.4375, 0.55, 0.3],
    [0.375, 0.382812, 0.495313, 0.675],
    [0.4125, 0.420313, 0.532812, 0.7125],
    [0.1, 0.5375, 0.65, 0.4],
  ],
  (0, 1): [
    [0.7, 0.45, 0.5625, 1],
    [0.3875, 0.567187, 0.679688, 0.6875],
    [0.425, 0.604688, 0.5625, 0.3125],
    [0.8, 0.55, 0.25, 0],
  ],
  (1, 0): [
    [0.6, 0.35, 0.4625, 0.9],
    [0.2875, 0.467188, 0.579687, 0.5875],
    [0.325, 0.504687, 0.617188, 0.625],
    [0.7, 0.45, 0.5625, 1],
  ],
  (1, 1): [
    [0.2, 0.6375, 0.75, 0.5],
    [0.575, 0.582812, 0.4375, 0.1875],
    [0.6125, 0.620313, 0.475, 0.225],
    [0.3, 0.7375, 0.85, 0.6],
  ],
}


def test_cropped_patches_equal_those_of_torchvision():
  patch = (np.arange(16) * 7 % 11 / 10).reshape(1, 4, 4, 1)
  images = jnp.asarray(np.tile(patch, (100, 2, 3, 1)), jnp.float32)
  patches = grid.patchify(crop(keys(100), images), 4)
  tables = np.array(list(PARTS.values())).reshape(4, 16)
  errors = np.abs(np.asarray(patches)[:, :, None] - tables[None, None]).max(-1)
  assert errors.min(axis=-1).max() < 2e-6  # Each is one of the four.
  counts = np.bincount(errors.argmin(axis=-1).ravel(), minlength=4)
  # 150 each; four standard deviations are 42.
  assert np.abs(counts - 150).max() < 42
  assert len(np.unique(errors.argmin(axis=-1), axis=0)) > 50


@pytest.mark.parametrize(
  ("patch_size", "part"), [(2, 2), (4, 3), (8, 7), (16, 14), (32, 28)]
)
def test_the_part_of_a_patch_that_is_left(patch_size, part):
  # Along a slope of 1 a pixel, the enlarged slope tells the size of the part.
  slope = jnp.arange(float(patch_size))[None, :, None, None]
  images = jnp.broadcast_to(slope, (1, patch_size, patch_size, 1))
  cropped = crop_patches(keys(1), images, patch_size)[0, :, 0, 0]
  middle = patch_size // 2
  np.testing.assert_allclose(
    cropped[middle] - cropped[middle - 1], part / patch_size, rtol=1e-4
  )


def test_patches_of_two_pixels_are_too_small_to_crop():
  images = colourful()
  np.testing.assert_array_equal(crop_patches(keys(), images, 2), images)


def test_each_patch_has_its_own_brightness():
  images = colourful(40)
  bright = jax.jit(
    lambda keys, images: patch_augment.jitter_patches(
      keys, images, 4, contrast=0, saturation=0, hue=0, probability=0.5
    )
  )(keys(40), images)
  factors = np.asarray(grid.patchify(bright, 4) / grid.patchify(images, 4))
  np.testing.assert_allclose(
    factors, np.broadcast_to(factors[..., :1], factors.shape), rtol=1e-5
  )
  factors = factors[..., 0]
  assert factors.min() > 0.6 - 1e-5
  assert factors.max() < 1.4 + 1e-5
  assert len(np.unique(factors[factors != 1])) > 60
  assert 55 < (factors == 1).sum() < 105  # Of 160, four deviations about 80.


def test_no_jitter_keeps_what_lies_outside():
  images = colourful(500) * 4 - 1
  outside = np.asarray(grid.patchify((images < 0) | (images > 1), 4))
  jittered = np.asarray(grid.patchify(jitter(keys(500), images), 4))
  kept = (jittered == np.asarray(grid.patchify(images, 4))).all(axis=-1)
  assert outside.any(axis=-1).all()
  assert abs(kept.mean() - 0.2) < 0.036  # Four standard deviations.


def test_grey_patches_are_grey_all_over():
  images = colourful(500)
  patches = grid.patchify(
    patch_augment.grey_patches(keys(500), images, 4), 4
  ).reshape(2000, 16, 3)
  before = np.asarray(grid.patchify(images, 4)).reshape(2000, 16, 3)
  chosen = np.asarray((patches == patches[..., :1]).all(axis=(1, 2)))
  assert abs(chosen.mean() - 0.2) < 0.036  # Four standard deviations.
  np.testing.assert_array_equal(patches[~chosen], before[~chosen])
  np.testing.assert_allclose(
    patches[chosen][..., 0],
    before[chosen] @ np.array([0.2989, 0.587, 0.114]),
    rtol=1e-5,
  )


def test_permuted_pixels_and_permutation_say_the_same():
  images = numbered()
  shown, order = patch_augment.permute_patches(keys(), images, 2)
  assert shown.dtype == images.dtype
  assert (np.sort(order, axis=1) == np.arange(16)).all()
  assert len(np.unique(order, axis=0)) == 3  # An order for each image.
  before = np.asarray(grid.patchify(images, 2))
  after = np.asarray(grid.patchify(shown, 2))
  for image in range(3):
    np.testing.assert_array_equal(after[image], before[image][order[image]])


def test_all_orders_of_the_patches_are_equally_likely():
  _, order = patch_augment.permute_patches(keys(2400), numbered(2400), 4)
  counts = collections.Counter(map(tuple, np.asarray(order).tolist()))
  assert sorted(counts) == list(itertools.permutations(range(4)))
  # 100 each; four standard deviations are 39.
  assert max(abs(count - 100) for count in counts.values()) < 40


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (
      lambda: mega_cuts(keys(), (4, 6), 5),
      "side=5 must be from 1 to 4: the image has 4×6 patches",
    ),
    (
      lambda: mega_cuts(keys(), (4, 6), 2, same_cuts=True),
      "same_cuts needs as many rows as columns of patches, not 4×6",
    ),
    (
      lambda: patch_augment.crop_patches(keys(), colourful(), 4, 0.5),
      "shrink=0.5 must leave from 1 to 4 of patch_size=4 pixels",
    ),
    (
      lambda: patch_augment.crop_patches(keys(), colourful(), 4, 0),
      "shrink=0 must leave from 1 to 4",
    ),
    (
      lambda: patch_augment.grey_patches(keys(), colourful(), 4, -1),
      "probability=-1 must be from 0 to 1",
    ),
    (
      lambda: patch_augment.grey_patches(keys(), colourful()[..., :1], 4),
      r"images of shape \(3, 8, 8, 1\) must have 3 channels",
    ),
    (
      lambda: patch_augment.jitter_patches(keys(), colourful()[..., :2], 4),
      r"images of shape \(3, 8, 8, 2\) must have 3 channels",
    ),
    (
      lambda: patch_augment.permute_patches(keys(), colourful(), 3),
      "patch_size=3 must divide .* 8×8",
    ),
  ],
)
def test_what_cannot_be_done_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
