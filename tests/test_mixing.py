"""Mixup and cutmix: what is drawn, and pixels and labels by hand."""

import augment_properties
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augment_properties import keys, numbered

from relvit_jax.data import mixing

SIZE = (8, 8)


def draw(count, size=SIZE, **keywords):
  return jax.jit(lambda k: mixing.draw_mixing(k, size, **keywords))(keys(count))


@jax.jit
def mixed(keys, images):
  # Partners must differ to show that they are mixed.
  number = jnp.arange(len(images), dtype=jnp.float32)[:, None, None, None]
  return mixing.mix(images + number, mixing.draw_mixing(keys, SIZE))


def test_devices_share_a_batch_without_a_word():
  augment_properties.check_devices_say_nothing(mixed, numbered(16))


def test_what_an_image_draws_follows_from_its_key_alone():
  together = draw(16)
  other = jax.jit(lambda k: mixing.draw_mixing(k, SIZE))(keys(16)[::-1])
  for field, same in zip(together, other, strict=True):
    np.testing.assert_array_equal(field, same[::-1])


def test_partners_are_neighbours_and_each_others():
  np.testing.assert_array_equal(draw(6).partner, [1, 0, 3, 2, 5, 4])


# Of four images: one blended, its partner cut, one untouched, one cut whole.
BY_HAND = mixing.Mixing(
  share=jnp.array([0.75, 0.5, 1.0, 0.0]),
  cut=jnp.array([False, True, False, True]),
  box=jnp.array([[0, 0, 0, 0], [0, 1, 2, 1], [0, 0, 0, 0], [0, 0, 2, 2]]),
)


def test_pixels_by_hand():
  images = jnp.array([0.0, 1.0, 2.0, 3.0])[:, None, None, None]
  images = jnp.broadcast_to(images, (4, 2, 2, 1))
  shown = mixing.mix(images, BY_HAND)[..., 0]
  np.testing.assert_allclose(
    shown,
    [
      [[0.25, 0.25], [0.25, 0.25]],
      [[1, 0], [1, 0]],
      [[2, 2], [2, 2]],
      [[2, 2], [2, 2]],
    ],
  )


def test_labels_by_hand():
  labels = jnp.array([0, 2, 1, 1])
  np.testing.assert_allclose(
    mixing.soft_labels(labels, 3, BY_HAND),
    [[0.75, 0, 0.25], [0.5, 0, 0.5], [0, 1, 0], [0, 1, 0]],
  )
  np.testing.assert_allclose(
    mixing.soft_labels(labels[:2], 3), [[1, 0, 0], [0, 0, 1]]
  )


def test_a_label_that_is_no_class_stops_a_run():
  soft = mixing.soft_labels(jnp.array([3, -1, 0]), 3)
  np.testing.assert_array_equal(np.isnan(soft).all(axis=1), [1, 1, 0])


def test_bytes_become_shares():
  shown = mixing.mix(numbered(4, 2), BY_HAND)
  assert shown.dtype == jnp.float32
  np.testing.assert_allclose(shown[2], numbered(1, 2)[0] / 255, rtol=1e-6)


def test_half_is_cut_and_half_is_blended_in_the_shares_of_beta():
  drawn = draw(4000, (224, 224))
  cut, share = np.asarray(drawn.cut), np.asarray(drawn.share)
  assert abs(cut.mean() - 0.5) < 0.032  # Four standard deviations.
  # Of Beta(0.8, 0.8): variance 1 / (4 · 2.6), and quartiles.
  blended = share[~cut]
  assert abs(blended.mean() - 0.5) < 0.03
  assert abs(blended.std() - np.sqrt(1 / 10.4)) < 0.015
  np.testing.assert_allclose(
    np.quantile(blended, [0.25, 0.75]), [0.219, 0.781], atol=0.035
  )
  assert (np.asarray(drawn.box)[~cut] == 0).all()


def test_boxes_are_those_of_cutmix():
  # Of 200000 of timm 0.9.16's boxes at 224 pixels: means and deviations of
  # (top, left, height, width), of the label's share and its quantiles.
  drawn = draw(6000, (224, 224), mixup_alpha=0)
  assert drawn.cut.all()
  boxes, share = np.asarray(drawn.box), np.asarray(drawn.share)
  assert (boxes[:, :2] + boxes[:, 2:] <= 224).all()
  np.testing.assert_allclose(
    1 - boxes[:, 2] * boxes[:, 3] / 224**2, share, atol=1e-6
  )
  np.testing.assert_allclose(
    boxes.mean(0), (51.2, 51.2, 120.8, 120.8), rtol=0.04
  )
  np.testing.assert_allclose(boxes.std(0), (52.9, 52.9, 44.7, 44.7), rtol=0.04)
  np.testing.assert_allclose(
    np.quantile(share, [0.25, 0.5, 0.75]), [0.555, 0.696, 0.83], atol=0.02
  )


def test_boxes_of_a_wide_image_keep_its_shape():
  drawn = draw(2000, (10, 40), mixup_alpha=0)
  corners, shapes = np.split(np.asarray(drawn.box), 2, axis=1)
  # Not cut off at the border, a box is as wide by its height as the image.
  whole = ((corners > 0) & (corners + shapes < (10, 40))).all(axis=1)
  assert whole.sum() > 100
  ratios = shapes[whole].astype(float)
  assert (np.abs(ratios[:, 1] - 4 * ratios[:, 0]) <= 8).all()


def test_one_of_the_two_alone_and_a_share_of_the_images():
  assert not draw(50, cutmix_alpha=0).cut.any()
  drawn = draw(2000, probability=0.3)
  # A box may be too small to hold a pixel: less than one in fifty is.
  assert abs((np.asarray(drawn.share) < 1).mean() - 0.3) < 0.045


@pytest.mark.parametrize(
  ("count", "keywords", "message"),
  [
    (3, {}, "mixing 3 images in pairs needs an even number"),
    (2, {"mixup_alpha": -1}, "mixup_alpha=-1 must not be negative"),
    (
      2,
      {"mixup_alpha": 0, "cutmix_alpha": 0},
      "mixup_alpha=0 and cutmix_alpha=0 leave nothing to mix",
    ),
    (2, {"probability": 2}, "probability=2 must be from 0 to 1"),
    (2, {"cutmix_share": 2}, "cutmix_share=2 must be from 0 to 1"),
  ],
)
def test_what_cannot_be_drawn_is_refused(count, keywords, message):
  with pytest.raises(ValueError, match=message):
    mixing.draw_mixing(keys(count), SIZE, **keywords)
