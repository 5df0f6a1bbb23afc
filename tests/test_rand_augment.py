"""RandAugment: warps and blends as Pillow's, and what is drawn."""

import augment_properties
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augment_properties import keys, numbered
from PIL import Image, ImageEnhance
from test_tones import change, picture, planes

from relvit_jax.data import augment, rand_augment, tones

FILL = (10, 200, 30)


@jax.jit
def applied(image, of):
  return rand_augment.apply_change(image, of, [byte / 255 for byte in FILL])


@jax.jit
def random(keys, images):
  return rand_augment.rand_augment(keys, images)


def draw(count, *numbers):
  draw_changes = jax.jit(rand_augment.draw_changes, static_argnums=(1, 2, 3, 4))
  return draw_changes(keys(count), *numbers)


def test_an_image_is_changed_by_its_key_alone():
  augment_properties.check_keys_alone_decide(random, numbered(16))


def test_devices_share_a_batch_without_a_word():
  augment_properties.check_devices_say_nothing(random, numbered(16))


def ours(operation, level, sign, image):
  shown = applied(planes(image), change(operation, level, sign))
  return np.asarray(shown)[0].transpose(1, 2, 0).astype(int)


def transformed(*matrix):
  return lambda image: image.transform(
    image.size,
    Image.Transform.AFFINE,
    matrix,
    resample=Image.Resampling.BILINEAR,
    fillcolor=FILL,
  )


def turned(degrees):
  return lambda image: image.rotate(
    degrees, resample=Image.Resampling.BILINEAR, fillcolor=FILL
  )


# (operation, level, sign) → Pillow, with the argument that timm 0.9.16
# computes from ten times the level; images are 23 pixels high and 31 wide.
WARPS = {
  ("rotate", 0.9, 1): turned(27),
  ("rotate", 0.5, -1): turned(-15),
  ("shear_x", 0.9, 1): transformed(1, 0.27, 0, 0, 1, 0),
  ("shear_x", 0.5, -1): transformed(1, -0.15, 0, 0, 1, 0),
  ("shear_y", 0.9, -1): transformed(1, 0, 0, -0.27, 1, 0),
  ("translate_x", 0.9, 1): transformed(1, 0, 0.405 * 31, 0, 1, 0),
  ("translate_x", 0.5, -1): transformed(1, 0, -0.225 * 31, 0, 1, 0),
  ("translate_y", 0.9, 1): transformed(1, 0, 0, 0, 1, 0.405 * 23),
}


@pytest.mark.parametrize("case", WARPS)
def test_warps_are_those_of_pillow(case):
  image = picture()
  theirs = np.asarray(WARPS[case](Image.fromarray(image))).astype(int)
  difference = np.abs(ours(*case, image) - theirs)
  # Fractions are cut off, and float32 now and then is on the other side.
  assert difference.max() <= 1
  assert difference.mean() < 0.005
  assert np.abs(theirs - image).mean() > 10


def test_a_shift_by_hand():
  # 0.45 of ten pixels at level 2 / 9: one pixel, exactly.
  image = np.arange(10, dtype=np.uint8).reshape(1, 10, 1).repeat(3, 2)
  for sign, row in ((1, [*range(1, 10), FILL[0]]), (-1, [FILL[0], *range(9)])):
    shown = ours("translate_x", 2 / 9, sign, image)
    np.testing.assert_array_equal(shown[0, :, 0], row)


BLENDS = {
  ("colour", 0.9, 1): (ImageEnhance.Color, 1.81),
  ("colour", 0.5, -1): (ImageEnhance.Color, 0.55),
  ("sharpness", 0.9, 1): (ImageEnhance.Sharpness, 1.81),
  ("sharpness", 0.9, -1): (ImageEnhance.Sharpness, 0.19),
}


@pytest.mark.parametrize("case", BLENDS)
def test_blends_are_those_of_pillow(case):
  enhance, factor = BLENDS[case]
  image = picture()
  theirs = np.asarray(enhance(Image.fromarray(image)).enhance(factor))
  np.testing.assert_array_equal(ours(*case, image), theirs)
  assert (theirs != image).any()


@pytest.mark.parametrize("operation", ["invert", "equalize"])
def test_tables_are_applied_too(operation):
  image = planes(picture())
  of = change(operation)
  np.testing.assert_array_equal(
    applied(image, of), tones.look_up(image, tones.tables(image, of))
  )


def test_nothing_changes_nothing():
  np.testing.assert_array_equal(ours(None, 0.9, 1, picture()), picture())
  never = draw(50, 2, 9, 0.5, 0).operation
  np.testing.assert_array_equal(never, np.full((50, 2), tones.NOTHING))


def test_changes_happen_one_after_the_other():
  images = numbered(40)
  shown = images.transpose(0, 3, 1, 2).astype(jnp.int32)
  drawn = draw(40, 2, 9, 0.5, 0.5)
  apply = jax.jit(rand_augment.apply_change)
  for step in range(2):
    shown = apply(shown, tones.Change(*(field[:, step] for field in drawn)))
  np.testing.assert_array_equal(
    random(keys(40), images), shown.transpose(0, 2, 3, 1)
  )


def test_shares_are_rounded_to_bytes():
  images = numbered(16)
  shown = random(keys(16), augment.to_float(images))
  assert shown.dtype == jnp.uint8
  np.testing.assert_array_equal(shown, random(keys(16), images))


def test_fifteen_operations_are_equally_likely_and_happen_half_the_time():
  drawn = draw(3000, 2, 9, 0.5, 0.5)
  counts = np.bincount(np.asarray(drawn.operation).ravel(), minlength=16)
  # Of 6000: 3000 do not happen, 200 for each operation; four deviations.
  assert abs(counts[tones.NOTHING] - 3000) < 155
  assert np.abs(counts[:15] - 200).max() < 56
  first, second = np.asarray(drawn.operation).T
  assert abs(np.corrcoef(first, second)[0, 1]) < 0.08
  assert abs(np.asarray(drawn.sign).mean()) < 0.052


def test_magnitudes_are_normal_and_cut_off_at_ten():
  level = np.asarray(draw(3000, 2, 9, 0.5, 1).level)
  assert level.max() == 1
  # Of a normal number 2.3 % lie two deviations above the mean.
  assert abs((level == 1).mean() - 0.0228) < 0.008
  np.testing.assert_allclose(
    np.quantile(level, [0.16, 0.5, 0.84]), [0.85, 0.9, 0.95], atol=0.004
  )
  fixed = draw(3, 1, 7, 0, 1)
  np.testing.assert_allclose(fixed.level, np.full((3, 1), 0.7), rtol=1e-6)


@pytest.mark.parametrize(
  ("keywords", "message"),
  [
    ({"num_operations": 0}, "num_operations=0 must be at least 1"),
    ({"magnitude": 11}, "magnitude=11 must be from 0 to 10"),
    ({"deviation": -1}, "deviation=-1 not negative"),
    ({"probability": 1.5}, "probability=1.5 must be from 0 to 1"),
  ],
)
def test_what_cannot_be_drawn_is_refused(keywords, message):
  with pytest.raises(ValueError, match=message):
    rand_augment.rand_augment(keys(), numbered(), **keywords)
