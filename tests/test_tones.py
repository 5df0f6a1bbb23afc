"""Tables of tones, byte for byte those of Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from relvit_jax.data import tones


def change(operation, level=0.9, sign=1.0, count=1):
  number = tones.OPERATIONS.index(operation) if operation else tones.NOTHING
  return tones.Change(
    jnp.full(count, number),
    jnp.full(count, level, jnp.float32),
    jnp.full(count, sign, jnp.float32),
  )


def picture(seed=0, size=(23, 31)):
  """Bytes from 40 to 219, of uneven frequency; blue of one byte alone."""
  random = np.random.default_rng(seed)
  pixels = np.clip(random.normal(120, 30, (*size, 3)), 40, 219)
  pixels[..., 2] = 77
  return pixels.astype(np.uint8)


def enhanced(kind, factor):
  return lambda image: kind(image).enhance(factor)


def planes(image):
  return jnp.asarray(image.transpose(2, 0, 1)[None], jnp.int32)


@jax.jit
def changed(image, of):
  return tones.look_up(image, tones.tables(image, of))


def ours(operation, level=0.9, sign=1.0):
  image = changed(planes(picture()), change(operation, level, sign))
  return np.asarray(image)[0].transpose(1, 2, 0)


# (operation, level, sign) → Pillow, with the argument that timm 0.9.16
# computes from ten times the level.
PILLOW = {
  ("equalize", 0.9, 1): ImageOps.equalize,
  ("invert", 0.9, 1): ImageOps.invert,
  ("posterize", 0.0, 1): lambda image: ImageOps.posterize(image, 4),
  ("posterize", 0.5, 1): lambda image: ImageOps.posterize(image, 2),
  ("posterize", 0.9, 1): lambda image: ImageOps.posterize(image, 1),
  ("solarize", 0.0, 1): lambda image: ImageOps.solarize(image, 256),
  ("solarize", 0.5, 1): lambda image: ImageOps.solarize(image, 128),
  ("solarize", 0.9, 1): lambda image: ImageOps.solarize(image, 26),
  ("solarize_add", 0.5, 1): lambda image: image.point(
    [min(255, byte + 55) if byte < 128 else byte for byte in range(256)] * 3
  ),
  ("contrast", 0.9, 1): enhanced(ImageEnhance.Contrast, 1.81),
  ("contrast", 0.5, -1): enhanced(ImageEnhance.Contrast, 0.55),
  ("brightness", 0.9, 1): enhanced(ImageEnhance.Brightness, 1.81),
  ("brightness", 1.0, -1): enhanced(ImageEnhance.Brightness, 0.1),
}


@pytest.mark.parametrize("case", PILLOW)
def test_tones_are_those_of_pillow(case):
  theirs = np.asarray(PILLOW[case](Image.fromarray(picture())))
  np.testing.assert_array_equal(ours(*case), theirs)
  assert case[1] == 0 or (theirs != picture()).any()


def test_contrast_is_stretched_to_all_bytes():
  # Pillow's own rounding is now and then one less than the fraction.
  theirs = np.asarray(ImageOps.autocontrast(Image.fromarray(picture())))
  stretched = ours("auto_contrast")
  difference = stretched.astype(int) - theirs
  assert set(np.unique(difference)) <= {0, 1}
  assert (difference == 0).mean() > 0.95
  assert stretched[..., :2].min() == 0
  assert stretched[..., :2].max() == 255
  # One byte alone has no range: it stays.
  assert (stretched[..., 2] == 77).all()


def test_a_stretch_by_hand():
  image = jnp.array([10, 15, 20, 60]).reshape(1, 1, 2, 2)
  image = jnp.broadcast_to(image, (1, 3, 2, 2))
  stretched = changed(image, change("auto_contrast"))
  # 5 and 10 of 50, times 255.
  np.testing.assert_array_equal(stretched[0, 1], [[0, 25], [51, 255]])


@pytest.mark.parametrize("operation", [None, "rotate", "colour", "sharpness"])
def test_what_is_no_table_leaves_bytes_as_they_are(operation):
  table = jax.jit(tones.tables)(planes(picture()), change(operation))
  np.testing.assert_array_equal(
    table[0], np.broadcast_to(np.arange(256), (3, 256))
  )


def test_the_deepest_cut_keeps_one_bit():
  assert set(np.unique(ours("posterize", 1.0))) == {0, 128}


def test_every_image_has_a_table_of_its_own():
  images = jnp.concatenate([planes(picture(seed)) for seed in range(3)])
  of = tones.Change(
    jnp.array([1, 2, tones.NOTHING]), jnp.full(3, 0.9), jnp.ones(3)
  )
  together = changed(images, of)
  for i in range(3):
    alone = jax.tree.map(lambda field, i=i: field[i : i + 1], of)
    np.testing.assert_array_equal(
      together[i], changed(images[i : i + 1], alone)[0]
    )


def test_histograms_count_each_byte_of_each_channel():
  counts = np.asarray(tones.histograms(planes(picture())))[0]
  for channel in range(3):
    np.testing.assert_array_equal(
      counts[channel],
      np.bincount(picture()[..., channel].ravel(), minlength=256),
    )


def test_grey_is_that_of_pillow():
  np.testing.assert_array_equal(
    tones.grey(planes(picture()))[0],
    np.asarray(Image.fromarray(picture()).convert("L")),
  )


def test_factors_of_enhancement_go_both_ways_from_one():
  up = {0.0: 1, 0.5: 1.45, 0.9: 1.81, 1.0: 1.9}
  down = {0.0: 1, 0.5: 0.55, 0.9: 0.19, 1.0: 0.1}
  table = [(1, *item) for item in up.items()]
  table += [(-1, *item) for item in down.items()]
  for sign, level, factor in table:
    np.testing.assert_allclose(
      tones.enhancement(change("colour", level, sign)), [factor], rtol=1e-6
    )
