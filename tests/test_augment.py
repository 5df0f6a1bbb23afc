"""What happens to an image, as a function of its key alone."""

import augment_properties
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augment_properties import keys, numbered

from relvit_jax.data import augment


def formula(height, width):
  """0.7·i modulo 1.1 in reading order: easy to make anywhere."""
  image = np.arange(height * width) * 7 % 11 / 10
  return jnp.asarray(image.reshape(1, height, width, 1), jnp.float32)


# Compiled as a whole: much quicker than operation by operation.
draw_boxes = jax.jit(augment.draw_boxes, static_argnums=(2, 3))
resize_boxes = jax.jit(augment.resize_boxes, static_argnums=2)
centre_view = jax.jit(augment.centre_view, static_argnums=(1, 2))


@jax.jit
def flip(keys, images):
  return augment.flip(keys, images)


@jax.jit
def pad_crop(keys, images):
  return augment.pad_crop(keys, images, 2)


@jax.jit
def resized_crop(keys, images):
  return augment.resized_crop(keys, images, 6)


RANDOM = pytest.mark.parametrize("change", [flip, pad_crop, resized_crop])


@RANDOM
def test_an_image_is_changed_by_its_key_alone(change):
  augment_properties.check_keys_alone_decide(change, numbered(16))


@RANDOM
def test_devices_share_a_batch_without_a_word(change):
  augment_properties.check_devices_say_nothing(change, numbered(16))


def test_subkeys_are_those_of_each_example():
  table = augment.subkeys(keys(3), 2)
  assert table.shape == (2, 3)
  for example in range(3):
    np.testing.assert_array_equal(
      jax.random.key_data(table[:, example]),
      jax.random.key_data(jax.random.split(keys(3)[example], 2)),
    )


def test_bytes_become_shares_and_floats_stay():
  images = jnp.array([0, 51, 255], jnp.uint8).reshape(1, 1, 3, 1)
  shares = augment.to_float(images)
  np.testing.assert_allclose(shares[0, 0, :, 0], [0, 0.2, 1], rtol=1e-6)
  assert shares.dtype == jnp.float32
  np.testing.assert_array_equal(augment.to_float(shares), shares)


def test_normalise_takes_the_mean_and_divides_by_the_deviation():
  images = jnp.full((1, 1, 1, 3), 255, jnp.uint8)
  mean = np.array([0.5, 0.25, 1.0], np.float32)
  std = np.array([0.5, 0.25, 2.0], np.float32)
  for same in (images, augment.to_float(images)):
    np.testing.assert_allclose(
      augment.normalise(same, mean, std)[0, 0, 0], [1, 3, 0], atol=1e-6
    )


def test_flip_mirrors_left_and_right_of_its_share():
  images = numbered(2000)
  flipped = np.asarray(augment.flip(keys(2000), images, 0.3))
  plain = np.asarray(images)
  mirrored = (flipped == plain[:, :, ::-1]).all(axis=(1, 2, 3))
  assert (mirrored | (flipped == plain).all(axis=(1, 2, 3))).all()
  assert abs(mirrored.mean() - 0.3) < 0.04  # Four standard deviations.


@pytest.mark.parametrize(("probability", "step"), [(0, 1), (1, -1)])
def test_flip_never_or_always(probability, step):
  images = numbered(50)
  np.testing.assert_array_equal(
    augment.flip(keys(50), images, probability), images[:, :, ::step]
  )


def test_pad_crop_shifts_within_the_padding():
  images = numbered(batch=900)
  cropped = np.asarray(augment.pad_crop(keys(900), images, 1))
  assert cropped.dtype == np.uint8
  padded = np.pad(np.asarray(images[0]), ((1, 1), (1, 1), (0, 0)))
  windows = [padded[y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
  seen = [
    next(i for i, window in enumerate(windows) if (window == image).all())
    for image in cropped
  ]
  # About 100 times each; four standard deviations are 38.
  assert np.abs(np.bincount(seen, minlength=9) - 100).max() < 38


def test_pad_crop_treats_height_and_width_apart():
  images = numbered()[:, :5]
  cropped = augment.pad_crop(keys(), images, 2)
  assert cropped.shape == images.shape
  whole = np.pad(np.asarray(images[0]), ((2, 2), (2, 2), (0, 0)))
  assert any(
    (whole[y : y + 5, x : x + 8] == np.asarray(cropped[0])).all()
    for y in range(5)
    for x in range(5)
  )


def test_no_padding_changes_nothing():
  images = numbered()
  assert augment.pad_crop(keys(), images, 0) is images


# (top, left, height, width) of an image of 5×6 pixels → torchvision 0.28's
# resized_crop with antialias.
RESIZED = {
  (1, 1, 2, 2): [[0.5, 0.3, 0.1], [0.4, 0.475, 0.55], [0.3, 0.65, 1]],
  (0, 2, 4, 3): [[0.517857, 0.607143], [0.694643, 0.292857]],
  (0, 0, 5, 6): [
    [0.459184, 0.564286, 0.4],
    [0.536508, 0.570833, 0.452381],
    [0.526531, 0.505357, 0.512245],
  ],
  (2, 0, 3, 5): [
    [0.6, 0.591667, 0.766667, 0.3],
    [0.475, 0.466667, 0.641667, 0.175],
    [0.428125, 0.557292, 0.491667, 0.334375],
    [0.475, 0.833333, 0.366667, 0.725],
  ],
}


@pytest.mark.parametrize("box", RESIZED)
def test_resized_boxes_equal_those_of_torchvision(box):
  table = RESIZED[box]
  resized = resize_boxes(formula(5, 6), jnp.array([box]), len(table))
  np.testing.assert_allclose(resized[0, :, :, 0], table, atol=1e-6)


def test_boxes_of_a_squashed_picture_are_of_its_original():
  # A slope of 1 to the right, 4 pixels wide, once stood on 12 pixels.
  image = jnp.broadcast_to(jnp.arange(4.0)[None, None, :, None], (1, 4, 4, 1))
  sizes, left_half = jnp.array([[4, 12]]), jnp.array([[0, 0, 4, 6]])
  resized = resize_boxes(image, left_half, 1, sizes=sizes)
  np.testing.assert_allclose(resized.ravel(), [0.5], atol=1e-6)


SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def boxes(height, width, count=4000, scale=SCALE, ratio=RATIO):
  sizes = jnp.broadcast_to(jnp.array([[height, width]]), (count, 2))
  return np.asarray(draw_boxes(keys(count), sizes, scale, ratio))


def test_boxes_lie_in_the_picture_and_are_spread_as_torchvision_does():
  # Of 20000 of torchvision 0.28's draws: means and standard deviations of
  # (top, left, height, width), and quantiles of the share of the area.
  for size, means, deviations, quantiles in (
    ((32, 32), (5.2, 5.2, 21.6, 21.6), (4.9, 4.8, 6.1, 6.2), (0.28, 0.68)),
    ((30, 100), (3.0, 37.0, 24.0, 25.6), (3.2, 21.7, 4.5, 6.7), (0.14, 0.27)),
  ):
    drawn = boxes(*size)
    corners, shapes = drawn[:, :2], drawn[:, 2:]
    assert (corners >= 0).all()
    assert (shapes >= 1).all()
    assert (corners + shapes <= size).all()
    np.testing.assert_allclose(drawn.mean(0), means, rtol=0.05, atol=0.2)
    np.testing.assert_allclose(drawn.std(0), deviations, rtol=0.05)
    shares = shapes.prod(axis=1) / np.prod(size)
    np.testing.assert_allclose(
      np.quantile(shares, [0.25, 0.75]), quantiles, atol=0.02
    )


def test_wide_and_high_boxes_are_equally_likely():
  drawn = boxes(100, 100, scale=(0.04, 0.04), ratio=(1 / 4, 4))
  ratios = drawn[:, 3] / drawn[:, 2]
  assert 0.24 < ratios.min() < 0.27
  assert 3.8 < ratios.max() < 4.2
  np.testing.assert_allclose(
    np.quantile(ratios, [0.25, 0.5, 0.75]), [0.5, 1, 2], rtol=0.1
  )


@pytest.mark.parametrize(
  ("size", "box"),
  [
    ((100, 12), (42, 0, 16, 12)),
    ((12, 100), (0, 42, 12, 16)),
    ((12, 15), (0, 0, 12, 15)),
  ],
)
def test_where_no_box_fits_it_is_the_largest_in_the_middle(size, box):
  # A box of twice the area fits nowhere.
  np.testing.assert_array_equal(boxes(*size, 5, scale=(2, 2)), [box] * 5)


def test_boxes_of_the_whole_area_are_the_picture():
  np.testing.assert_array_equal(
    boxes(9, 9, 5, scale=(1, 1), ratio=(1, 1)), [[0, 0, 9, 9]] * 5
  )


def test_resized_crop_shows_the_boxes_it_draws():
  images = formula(9, 7)
  sizes = jnp.array([[18, 7]])
  crop = jax.jit(augment.resized_crop, static_argnums=2)
  box = draw_boxes(keys(1), sizes, SCALE, RATIO)
  np.testing.assert_allclose(
    crop(keys(1), images, 5, sizes=sizes),
    resize_boxes(images, box, 5, sizes=sizes),
    rtol=1e-5,
  )


def test_bytes_and_shares_are_cropped_alike():
  images = numbered(16)
  np.testing.assert_allclose(
    resized_crop(keys(16), images),
    resized_crop(keys(16), augment.to_float(images)),
    rtol=1e-5,
  )


# (height, width, Resize, CenterCrop) → torchvision 0.28's pixels, of sizes
# where it has nothing to round. In the first, pixels beside the crop count.
CENTRES = {
  (8, 12, 4, 2): [[0.5, 0.439063], [0.439063, 0.378125]],
  (12, 18, 8, 6): [
    [0.390123, 0.572839, 0.412346, 0.47284, 0.651852, 0.440741],
    [0.487654, 0.493827, 0.591358, 0.434568, 0.559259, 0.348148],
    [0.477778, 0.42963, 0.581482, 0.37037, 0.549383, 0.609877],
    [0.62963, 0.418518, 0.57037, 0.522222, 0.483951, 0.490123],
    [0.565432, 0.408642, 0.506173, 0.512346, 0.406173, 0.616049],
    [0.52716, 0.587654, 0.427161, 0.609876, 0.449383, 0.550617],
  ],
}


@pytest.mark.parametrize("case", CENTRES)
def test_the_middle_equals_resize_and_centre_crop_of_torchvision(case):
  height, width, resized, size = case
  view = centre_view(formula(height, width), size, size / resized)
  np.testing.assert_allclose(view[0, :, :, 0], CENTRES[case], atol=2e-6)


def test_the_middle_of_a_squashed_picture():
  # Once 4×8: the middle square is the two columns in the middle.
  image = jnp.broadcast_to(jnp.arange(4.0)[None, None, :, None], (1, 4, 4, 1))
  view = centre_view(image, 2, 1.0, jnp.array([[4, 8]]))
  np.testing.assert_allclose(view[0, :, :, 0], [[1, 2]] * 2, atol=1e-6)


def test_the_whole_picture_is_squashed_or_left_alone():
  images = numbered()
  view = centre_view(images, 8, None)
  np.testing.assert_array_equal(view, augment.to_float(images))
  sizes = jnp.array([[8, 20]] * 3)
  np.testing.assert_array_equal(centre_view(images, 8, None, sizes), view)
  small = centre_view(images[:, :4], 2, None)
  whole = jnp.array([[0, 0, 4, 8]] * 3)
  np.testing.assert_allclose(
    small, resize_boxes(images[:, :4], whole, 2), rtol=1e-6
  )


@pytest.mark.parametrize(
  ("call", "error", "message"),
  [
    (
      lambda images: augment.to_float(images.astype(jnp.int32)),
      TypeError,
      "images of type int32 are neither uint8",
    ),
    (
      lambda images: augment.flip(keys(), images, 1.5),
      ValueError,
      "probability=1.5 must be from 0 to 1",
    ),
    (
      lambda images: augment.pad_crop(keys(), images, -1),
      ValueError,
      "data.crop_padding=-1 must not be negative",
    ),
    (
      lambda images: augment.resized_crop(keys(), images, 4, scale=(0, 1)),
      ValueError,
      r"scale=\(0, 1\) must be above 0 and ascend",
    ),
    (
      lambda images: augment.resized_crop(keys(), images, 4, ratio=(2, 1)),
      ValueError,
      r"ratio=\(2, 1\) must be above 0 and ascend",
    ),
    (
      lambda images: augment.resize_boxes(images, jnp.zeros((3, 4)), 0),
      ValueError,
      "size=0 must be at least 1 pixel",
    ),
    (
      lambda images: centre_view(images, 4, 0.0),
      ValueError,
      "share=0.0 must be above 0 and at most 1",
    ),
  ],
)
def test_what_cannot_be_done_is_refused(call, error, message):
  with pytest.raises(error, match=message):
    call(numbered())
