"""The geometry, as tables a person can check by eye."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relvit_jax import grid

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 6))


def named(row):
  return [grid.RELATIONS[i] for i in row]


def test_relations_of_a_2x2_grid():
  table = grid.relations(2, 2)
  assert table.dtype == np.int32
  assert named(table[0]) == ["same", "left", "up", "up_left"]
  assert named(table[1]) == ["right", "same", "up_right", "up"]
  assert named(table[2]) == ["down", "down_left", "same", "left"]
  assert named(table[3]) == ["down_right", "down", "right", "same"]


def test_relations_to_the_middle_of_a_3x3_grid_count_up():
  np.testing.assert_array_equal(grid.relations(3, 3)[:, 4], range(9))


def test_relations_of_a_row_and_of_a_column():
  np.testing.assert_array_equal(
    grid.relations(1, 3), [[4, 3, 3], [5, 4, 3], [5, 5, 4]]
  )
  np.testing.assert_array_equal(
    grid.relations(3, 1), [[4, 1, 1], [7, 4, 1], [7, 7, 4]]
  )


def test_distances_of_a_2x2_grid():
  edge = 2 / np.sqrt(2) - 1
  np.testing.assert_allclose(
    grid.distances(2, 2),
    [
      [-1, edge, edge, 1],
      [edge, -1, 1, edge],
      [edge, 1, -1, edge],
      [1, edge, edge, -1],
    ],
    atol=1e-6,
  )


def test_angles_of_a_2x2_grid_are_seen_from_half_a_grid_outside():
  # The four patches lie at (1,1), (1,2), (2,1), (2,2): the largest angle is
  # between the second and the third, and the first hides the fourth.
  slope = np.arctan2(2, 1) - np.arctan2(1, 1)
  half = slope / (2 * slope) * 2 - 1
  np.testing.assert_allclose(
    grid.angles(2, 2),
    [
      [-1, half, half, -1],
      [half, -1, 1, half],
      [half, 1, -1, half],
      [-1, half, half, -1],
    ],
    # The official 1e-4 in the denominator opens an angle between patches that
    # hide one another: arccos(4 / (4 + 1e-4)) / 0.6435 * 2 = 0.022.
    atol=0.0225,
  )
  np.testing.assert_array_equal(np.diag(grid.angles(2, 2)), [-1] * 4)


@pytest.mark.parametrize("size", [(24, 24), (28, 28), (10, 40), (64, 64)])
def test_angles_of_large_grids_are_numbers(size):
  table = grid.angles(*size)
  assert table.min() == -1
  assert table.max() == 1


def test_positions_are_the_reading_order():
  np.testing.assert_array_equal(grid.positions(2, 3), range(6))


@settings(deadline=None, max_examples=20)
@given(SIZES, st.integers(0, 35), st.integers(1, 36))
def test_some_first_patches_have_the_rows_of_all(size, start, count):
  places = grid.coordinates(*size)
  first = places[start : start + count]
  for part, table in (
    (grid.pair_relations(first, places), grid.relations(*size)),
    (grid.pair_distances(first, size, places), grid.distances(*size)),
    (grid.pair_angles(first, size, places), grid.angles(*size)),
  ):
    np.testing.assert_array_equal(part, table[start : start + count])


def test_a_single_patch_has_nothing_but_itself():
  assert grid.relations(1, 1) == [[4]]
  assert grid.distances(1, 1) == [[-1]]
  assert grid.angles(1, 1) == [[-1]]


def test_permute_pairs_follows_the_patches():
  table = np.arange(9).reshape(3, 3)
  np.testing.assert_array_equal(
    grid.permute_pairs(table, np.array([[2, 0, 1]])),
    [[[8, 6, 7], [2, 0, 1], [5, 3, 4]]],
  )


def test_patches_and_their_pixels_are_in_reading_order():
  image = np.arange(16).reshape(1, 4, 4, 1)
  np.testing.assert_array_equal(
    grid.patchify(image, 2)[0],
    [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]],
  )


@given(SIZES)
def test_seen_from_the_other_side_a_relation_is_its_opposite(size):
  table = grid.relations(*size)
  np.testing.assert_array_equal(table.T, 8 - table)


@given(SIZES)
def test_distances_and_angles_are_symmetric_and_scaled(size):
  for table in (grid.distances(*size), grid.angles(*size)):
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, table.T)
    np.testing.assert_array_equal(np.diag(table), -1.0)
    if size[0] * size[1] > 1:
      assert table.max() == 1


@settings(deadline=None, max_examples=25)
@given(SIZES, st.integers(0, 2**32 - 1))
def test_targets_of_permuted_coordinates_are_the_permuted_tables(size, seed):
  random = np.random.default_rng(seed)
  order = np.stack([random.permutation(size[0] * size[1]) for _ in range(2)])
  shown = jnp.asarray(grid.coordinates(*size))[order]
  np.testing.assert_array_equal(
    grid.pair_relations(shown), grid.permute_pairs(grid.relations(*size), order)
  )
  np.testing.assert_allclose(
    grid.pair_distances(shown, size),
    grid.permute_pairs(grid.distances(*size), order),
    atol=1e-6,
  )


@pytest.mark.parametrize(
  "size", [(2, 2), (3, 3), (8, 8), (7, 7), (5, 9), (28, 28), (3, 42)]
)
def test_angles_on_the_device_are_those_of_the_table(size):
  order = np.random.default_rng(0).permutation(size[0] * size[1])[None]
  shown = jnp.asarray(grid.coordinates(*size))[order]
  compiled = jax.jit(grid.pair_angles, static_argnums=1)(shown, size)
  np.testing.assert_allclose(
    compiled, grid.permute_pairs(grid.angles(*size), order), atol=1e-5
  )


@given(SIZES, st.integers(1, 4), st.integers(1, 3))
def test_unpatchify_puts_the_patches_back(size, patch_size, channels):
  shape = (2, size[0] * patch_size, size[1] * patch_size, channels)
  images = np.arange(np.prod(shape)).reshape(shape)
  patches = grid.patchify(images, patch_size)
  np.testing.assert_array_equal(
    grid.unpatchify(patches, size, patch_size), images
  )


def test_mega_patches_average_what_they_shrink():
  # Columns of patches of one pixel: the first alone, the other two as one.
  image = np.array([[[[1.0], [2.0], [4.0]]] * 2], np.float32)
  small = grid.mega_patches(image, np.array([1]), np.array([1]), 1)
  np.testing.assert_allclose(small[0, :, :, 0], [[1, 3], [1, 3]], rtol=1e-6)


def test_even_mega_patches_are_the_image():
  image = np.random.default_rng(0).normal(size=(1, 6, 4, 3))
  cuts = np.array([1, 2]), np.array([1])
  np.testing.assert_allclose(
    grid.mega_patches(image, *cuts, 2), image, atol=1e-6
  )


def test_mega_patches_of_each_image_by_its_own_cuts():
  images = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
  rows, columns = np.array([[1, 3], [2, 3]]), np.array([[1, 2], [1, 3]])
  together = jax.jit(grid.mega_patches, static_argnums=3)(
    images, rows.astype(np.uint8), columns, 2
  )
  for i in range(2):
    alone = grid.mega_patches(images[i : i + 1], rows[i], columns[i], 2)
    np.testing.assert_allclose(together[i], alone[0], atol=1e-6)


# torchvision 0.28's resize of each part, with and without antialias; the images
# are 0.7·i modulo 1.1 in reading order, to be told apart by eye.
MEGA_PATCHES = {
  True: [
    [0.342857, 0.657143, 0.471429, 0.628571],
    [0.442857, 0.285714, 0.571429, 0.728571],
    [0.491071, 0.451786, 0.580357, 0.482143],
    [0.446429, 0.603571, 0.476786, 0.4375],
  ],
  False: [
    [0.35, 0.65, 0.4, 0.7],
    [0.45, 0.2, 0.5, 0.8],
    [0.65, 0.4, 0.7, 0.45],
    [0.4, 0.7, 0.45, 0.2],
  ],
}


@pytest.mark.parametrize("antialias", [True, False])
def test_mega_patches_equal_those_of_torchvision(antialias):
  image = (np.arange(64) * 7 % 11 / 10).astype(np.float32)
  small = grid.mega_patches(
    image.reshape(1, 8, 8, 1),
    np.array([1]),
    np.array([2]),
    2,
    antialias=antialias,
  )
  np.testing.assert_allclose(
    small[0, :, :, 0], MEGA_PATCHES[antialias], atol=1e-6
  )


def test_mega_patches_without_antialias_leave_pixels_out():
  # One part of three pixels: with antialias all count, without the middle one.
  image = np.array([0.0, 1.0, 0.0]).reshape(1, 1, 3, 1)
  none = np.array([], np.int32)
  for antialias, value in ((True, 3 / 7), (False, 1)):
    small = grid.mega_patches(image, none, none, 1, antialias=antialias)
    np.testing.assert_allclose(small[0, 0], [[value]], atol=1e-6)


def test_mega_patches_equal_the_official_ones(reference):
  archive = reference("megapatches_side5_img224")
  image = archive["image_chw_u8"].transpose(1, 2, 0)[None] / 255
  ours = grid.mega_patches(
    image, archive["cuts"], archive["cuts"], int(archive["patch_size"])
  )
  np.testing.assert_allclose(
    ours[0].transpose(2, 0, 1), archive["out"], atol=1e-5
  )


@pytest.mark.parametrize("side", [3, 8])
def test_tables_equal_the_official_ones(reference, side):
  archive = reference(f"targets_side{side}")
  tables = {
    "relations": grid.relations(side, side),
    "distances": grid.distances(side, side),
    "angles": grid.angles(side, side),
  }
  tolerances = {"relations": 0, "distances": 1e-6, "angles": 1e-5}
  order = archive["perm"][None]
  for name, table in tables.items():
    permuted = grid.permute_pairs(table, order)[0]
    for ours, official in (
      (table, archive[name]),
      (permuted, archive[f"perm_{name}"]),
    ):
      np.testing.assert_allclose(
        ours, official, rtol=0, atol=tolerances[name], err_msg=name
      )
  np.testing.assert_array_equal(
    grid.positions(side, side)[order[0]], archive["perm_abs_positions"]
  )


def test_patch_layout_equals_the_official_one(reference):
  archive = reference("patch_layout")
  image = archive["image_chw"].transpose(1, 2, 0)[None]
  patches = grid.patchify(image, 4).reshape(4, 4, 4, 3)
  np.testing.assert_array_equal(
    patches.transpose(3, 0, 1, 2), archive["patches_cnhw"]
  )


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: grid.relations(0, 3), "at least 1×1 patches, got 0×3"),
    (
      lambda: grid.patchify(np.zeros((1, 8, 9, 3)), 4),
      "patch_size=4 must divide .* 8×9",
    ),
    (
      lambda: grid.unpatchify(np.zeros((1, 5, 48)), (2, 2), 4),
      "not a 2×2 grid of 4×4 pixels",
    ),
    (
      lambda: grid.mega_patches(
        np.zeros((1, 6, 6, 3)), np.array([1, 3]), np.array([1, 2]), 2
      ),
      r"row_cuts=\[1, 3\] must ascend from at least 1 to at most 2",
    ),
    (
      lambda: grid.mega_patches(
        np.zeros((1, 6, 6, 3)), np.array([1, 2]), np.array([2, 2]), 2
      ),
      r"column_cuts=\[2, 2\] must ascend",
    ),
  ],
)
def test_what_is_no_grid_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
