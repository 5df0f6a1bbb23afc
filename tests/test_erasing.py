"""Random erasing: boxes as timm's, noise inside, nothing outside."""

import augment_properties
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augment_properties import keys

from relvit_jax.data import erasing

AREA, RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)

draw_boxes = jax.jit(erasing.draw_boxes, static_argnums=(1, 2, 3, 4))
always = jax.jit(lambda keys, images: erasing.random_erase(keys, images, 1))


def ones(batch, height=12, width=10):
  return jnp.full((batch, height, width, 3), 9.0)


def test_an_image_is_changed_by_its_key_alone():
  augment_properties.check_keys_alone_decide(always, ones(16))


def test_devices_share_a_batch_without_a_word():
  augment_properties.check_devices_say_nothing(always, ones(16))


def test_a_box_is_the_pixels_from_its_corner():
  boxes = jnp.array([[1, 0, 2, 3], [0, 0, 0, 0]])
  np.testing.assert_array_equal(
    erasing.in_boxes(boxes, (4, 4)).astype(int),
    [
      [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]],
      np.zeros((4, 4)),
    ],
  )


def test_one_box_of_an_image_is_normal_noise():
  images = ones(400)
  erased = np.asarray(always(keys(400), images))
  of_boxes = jax.vmap(jax.random.split)(keys(400))[:, 0]
  boxes = draw_boxes(of_boxes, (12, 10), 1, AREA, RATIO)
  inside = np.asarray(erasing.in_boxes(boxes, (12, 10)))
  assert (erased[~inside] == 9).all()
  noise = erased[inside]  # About 8000 pixels.
  assert abs(noise.mean()) < 0.03
  assert abs(noise.std() - 1) < 0.03
  assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.06


def test_a_quarter_of_the_images_is_changed():
  images = ones(2000)
  erased = jax.jit(lambda k, x: erasing.random_erase(k, x))(keys(2000), images)
  share = (np.asarray(erased) != 9).any(axis=(1, 2, 3)).mean()
  assert abs(share - 0.25) < 0.039  # Four standard deviations.


def test_boxes_lie_in_the_picture_and_are_spread_as_timms():
  # Means and standard deviations of (top, left, height, width) of 20000 boxes
  # of timm 0.9.16, and quantiles of the share of the area.
  for size, means, deviations, quantiles in (
    ((32, 32), (9.2, 9.1, 13.6, 13.7), (6.6, 6.7, 6.2, 6.3), (0.10, 0.25)),
    ((24, 60), (5.2, 21.6, 13.6, 17.1), (4.3, 13.5, 4.9, 8.0), (0.08, 0.23)),
  ):
    drawn = np.asarray(draw_boxes(keys(4000), size, 1, AREA, RATIO))
    corners, shapes = drawn[:, :2], drawn[:, 2:]
    assert (corners >= 0).all()
    assert (shapes >= 1).all()
    assert (shapes < size).all()
    assert (corners + shapes <= size).all()
    np.testing.assert_allclose(drawn.mean(0), means, rtol=0.05, atol=0.2)
    np.testing.assert_allclose(drawn.std(0), deviations, rtol=0.05)
    shares = shapes.prod(axis=1) / np.prod(size)
    np.testing.assert_allclose(
      np.quantile(shares, [0.25, 0.75]), quantiles, atol=0.02
    )


def test_where_no_box_fits_nothing_is_erased():
  boxes = draw_boxes(keys(5), (8, 8), 1, (1, 1), (1, 1))
  np.testing.assert_array_equal(boxes, np.zeros((5, 4)))


@pytest.mark.parametrize(
  ("arguments", "keywords", "message"),
  [
    ((1.5,), {}, "probability=1.5 must be from 0 to 1"),
    ((), {"area": (0.5, 0.1)}, r"area=\(0.5, 0.1\) must be above 0 and ascend"),
    ((), {"ratio": (0, 1)}, r"ratio=\(0, 1\) must be above 0 and ascend"),
  ],
)
def test_what_cannot_be_drawn_is_refused(arguments, keywords, message):
  with pytest.raises(ValueError, match=message):
    erasing.random_erase(keys(), ones(3), *arguments, **keywords)
