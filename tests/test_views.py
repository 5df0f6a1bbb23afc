"""What the model is shown, from the settings of a config to pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax import grid
from relvit_jax.data.views import Views

PLAIN = {
  "image_size": 8,
  "patch_size": 2,
  "mean": (0.5, 0.4, 0.3),
  "std": (0.2, 0.25, 0.5),
}


def keys(count=4, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def batch(count=4, size=8):
  shape = (count, size, size, 3)
  images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
  return {"image": jnp.asarray(images), "label": jnp.zeros(count, jnp.int32)}


def train(view, given=None, made=None):
  return jax.jit(view.training)(
    keys() if made is None else made, batch() if given is None else given
  )


def pixels(view, images):
  return np.asarray(view.normalise(images, inverse=True))


def test_without_augmentation_training_and_evaluation_are_the_image():
  view = Views(**PLAIN)
  images, order, mixed = train(view)
  assert order is None
  assert mixed is None
  expected = (np.asarray(batch()["image"]) / 255 - PLAIN["mean"]) / PLAIN["std"]
  np.testing.assert_allclose(images, expected, atol=1e-5)
  np.testing.assert_allclose(view.evaluation(batch()), expected, atol=1e-5)
  np.testing.assert_allclose(
    pixels(view, images), np.asarray(batch()["image"]) / 255, atol=1e-6
  )


EVERYTHING = {
  "crop": "resized",
  "flip": 0.5,
  "rand_augment": 2,
  "erasing": 0.5,
  "mega_patches": 3,
  "patch_crop": 1.5,
  "patch_jitter": 0.8,
  "patch_grey": 0.2,
  "permute_patches": True,
}


@pytest.mark.long
def test_what_happens_to_an_example_does_not_depend_on_its_neighbours():
  view = Views(**PLAIN, **EVERYTHING)
  images, order, _ = train(view)
  alone = jax.tree.map(lambda leaf: leaf[2:3], batch())
  image, places, _ = train(view, alone, keys()[2:3])
  np.testing.assert_allclose(image[0], images[2], atol=1e-5)
  np.testing.assert_array_equal(places[0], order[2])


def test_other_keys_make_another_view():
  view = Views(**PLAIN, **EVERYTHING)
  one, other = train(view)[0], train(view, made=keys(seed=1))[0]
  assert (np.abs(np.asarray(one - other)).max(axis=(1, 2, 3)) > 0.1).all()


def test_every_step_draws_from_keys_of_its_own():
  """One setting more leaves what the others drew as it was."""
  plain = train(Views(**PLAIN, crop="pad", crop_padding=2)).images
  shown, order, _ = train(
    Views(**PLAIN, crop="pad", crop_padding=2, permute_patches=True)
  )
  patches = grid.patchify(plain, 2)
  expected = jnp.take_along_axis(patches, order[:, :, None], axis=1)
  np.testing.assert_allclose(grid.patchify(shown, 2), expected, atol=1e-6)


def test_mega_patches_shrink_what_the_model_sees():
  view = Views(**PLAIN, mega_patches=3)
  assert view.model_size == 6
  assert train(view)[0].shape == (4, 6, 6, 3)
  assert view.evaluation(batch()).shape == (4, 6, 6, 3)


def test_evaluation_merges_evenly_and_the_official_one_by_chance():
  flat = batch() | {"image": jnp.full((4, 8, 8, 3), 51, jnp.uint8)}
  ramp = np.broadcast_to(np.arange(0, 240, 30, dtype=np.uint8), (4, 8, 8))
  ramp = flat | {"image": jnp.asarray(np.repeat(ramp[..., None], 3, axis=-1))}
  even = Views(**PLAIN, mega_patches=2)
  official = Views(
    **PLAIN, mega_patches=2, mega_while_evaluating=True, mega_same_cuts=True
  )
  for view in (even, official):
    np.testing.assert_allclose(pixels(view, view.evaluation(flat)), 0.2, 1e-5)
    again = [view.evaluation(ramp) for _ in range(2)]
    np.testing.assert_array_equal(*again)
  same = np.asarray(even.evaluation(ramp))
  assert (same == same[:1]).all()
  assert not (official.evaluation(ramp) == same).all()


def test_official_jitter_cuts_off_what_is_below_the_mean():
  jittered = {"patch_jitter": 1.0, "jitter_strength": (0.4, 0.4, 0.4, 0)}
  right = Views(**PLAIN, **jittered)
  official = Views(**PLAIN, **jittered, jitter_after_normalise=True)
  assert np.asarray(train(right)[0]).min() < -1
  standardised = np.asarray(train(official)[0])
  assert standardised.min() >= 0
  assert standardised.max() <= 1


def test_official_permutation_may_move_the_targets_only():
  settings = {"permute_patches": True, "permute_targets_only": True}
  images, order, _ = train(Views(**PLAIN, **settings))
  np.testing.assert_allclose(images, train(Views(**PLAIN))[0], atol=1e-6)
  assert not (np.asarray(order) == np.arange(16)).all()


@pytest.mark.parametrize("crop", ["none", "resized"])
def test_a_squashed_image_is_shown_in_its_own_proportions(crop):
  """A picture of 16×8 pixels, kept at 8×8: half of it is red."""
  stored = np.zeros((1, 8, 8, 3), np.uint8)
  stored[:, :4, :, 0] = 255
  squashed = {
    "image": jnp.asarray(stored),
    "size": jnp.array([[16, 8]], jnp.int32),
  }
  view = Views(**PLAIN, crop=crop, eval_crop=1.0, crop_scale=(0.5, 0.5))
  shown = pixels(view, view.evaluation(squashed))
  # The central square: rows 4 to 12 of 16, the upper half of it red.
  np.testing.assert_allclose(shown[0, :3, :, 0], 1, atol=0.01)
  np.testing.assert_allclose(shown[0, 5:, :, 0], 0, atol=0.01)
  images = train(view, squashed, keys(1)).images
  assert images.shape == (1, 8, 8, 3)


@pytest.mark.parametrize("mega", [0, 3])
def test_what_was_cropped_as_it_was_decoded_is_shown_as_it_is(mega):
  view = Views(**PLAIN, crop="resized", eval_crop=0.5, mega_patches=mega)
  size = view.crops.evaluation_size
  assert (view.crops.size, size) == (8, 2 * mega or 8)
  shown = batch(size=size) | {"box": jnp.zeros((4, 4))}
  np.testing.assert_allclose(
    pixels(view, view.evaluation(shown)),
    np.asarray(shown["image"]) / 255,
    atol=1e-6,
  )
  if not mega:
    np.testing.assert_allclose(
      pixels(view, train(view, shown).images),
      np.asarray(shown["image"]) / 255,
      atol=1e-6,
    )


def test_crops_leave_what_else_is_drawn_as_it_was():
  """The keys of a view are its own, whoever crops."""
  view = Views(**PLAIN, crop="resized", permute_patches=True)
  cropped = batch() | {"box": jnp.zeros((4, 4))}
  np.testing.assert_array_equal(train(view, cropped).places, train(view).places)


def test_a_decoder_is_told_what_the_device_would_have_cut():
  crops = Views(
    **PLAIN,
    crop="resized",
    crop_scale=(0.2, 0.9),
    crop_ratio=(1, 2),
    eval_crop=0.8,
  ).crops
  assert (crops.scale, crops.ratio) == ((0.2, 0.9), (1, 2))
  assert (crops.size, crops.evaluation_size, crops.share) == (8, 8, 0.8)
  official = Views(**PLAIN, mega_patches=3, mega_while_evaluating=True)
  assert official.crops.evaluation_size == 8


STRONG = {
  "rand_augment": 2,
  "erasing": 0.5,
  "mixup_alpha": 0.8,
  "cutmix_alpha": 1.0,
}


@pytest.mark.parametrize("name", STRONG)
def test_each_part_of_the_strong_recipe_changes_images(name):
  plain = train(Views(**PLAIN), batch(16), keys(16)).images
  shown = train(Views(**PLAIN, **{name: STRONG[name]}), batch(16), keys(16))
  assert (np.abs(np.asarray(shown.images - plain)).max() > 0.1).all()
  assert (shown.mixed is not None) == name.endswith("alpha")


def test_a_mixed_image_is_its_own_in_shares_and_else_its_partners():
  """The patches move last, so that their places hold for both images."""
  blended = Views(**PLAIN, mixup_alpha=0.8)
  plain = train(Views(**PLAIN)).images
  images, _, mixed = train(blended)
  share = mixed.share[:, None, None, None]
  expected = share * plain + (1 - share) * plain[jnp.array([1, 0, 3, 2])]
  np.testing.assert_allclose(images, expected, atol=1e-5)
  both = Views(**PLAIN, mixup_alpha=0.8, permute_patches=True)
  moved, places, _ = train(both)
  patches = jnp.take_along_axis(
    grid.patchify(images, 2), places[:, :, None], axis=1
  )
  np.testing.assert_allclose(grid.patchify(moved, 2), patches, atol=1e-6)


def test_nothing_is_mixed_with_a_chance_of_nothing():
  view = Views(**PLAIN, mixup_alpha=0.8, mix_probability=0.0)
  assert train(view).mixed is None


def test_the_strong_recipe_is_for_training_alone():
  np.testing.assert_array_equal(
    Views(**PLAIN, **STRONG).evaluation(batch()),
    Views(**PLAIN).evaluation(batch()),
  )
