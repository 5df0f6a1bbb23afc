"""The contact sheet, looked at as numbers and as a picture."""

import matplotlib.image
import numpy as np
import pytest

from relvit_jax import cli, config
from relvit_jax.analysis import contact_sheet
from relvit_jax.data import sources

TRAIN = sources.digits()["train"]


def test_it_has_a_row_an_image_and_a_column_a_view():
  settings = config.load("digits:pretrain")
  figure = contact_sheet.sheet(settings, TRAIN, rows=3, views=2)
  assert len(figure.axes) == 3 * 4
  titles = [axes.get_title() for axes in figure.axes[:4]]
  assert titles == ["stored", "evaluation", "training 1", "training 2"]
  stored, evaluation, first, second = (
    np.asarray(axes.get_images()[0].get_array()) for axes in figure.axes[:4]
  )
  np.testing.assert_allclose(evaluation, stored, atol=1e-6)
  # Shifted by at most a pixel, each in its own way.
  assert not np.allclose(first, second)
  assert abs(first.mean() - stored.mean()) < 0.15
  assert (stored * 255).round().astype(int).tolist() in TRAIN.images.tolist()


def test_an_odd_number_of_images_can_be_mixed():
  settings = config.load("digits:joint,strong", ["augment.mix_probability=1"])
  figure = contact_sheet.sheet(settings, TRAIN, rows=3, views=1)
  assert len(figure.axes) == 3 * 3


@pytest.mark.parametrize(
  ("overrides", "words"),
  [
    ([], "shifts by up to 1 px"),
    (["augment.crop=none"], "no augmentation"),
    (
      ["augment.crop=resized", "augment.flip=0.5", "augment.mega_patches=3"],
      "crop of 8 to 100 % of the area, flip, 3×3 mega-patches",
    ),
    (
      [
        "augment.patch_crop=1.15",
        "augment.patch_jitter=0.8",
        "augment.jitter_after_normalise=True",
        "augment.patch_grey=0.2",
        "augment.permute_patches=True",
      ],
      "shifts by up to 1 px, patches cropped to 1/1.15, 80 % jittered after "
      "normalisation, 20 % grey, patches permuted",
    ),
  ],
)
def test_its_title_says_what_is_done(overrides, words):
  said = contact_sheet.in_words(config.load("digits:pretrain", overrides))
  assert said == f"digits, pretrain: 8×8 pixels, patches of 2×2\n{words}"


def test_the_command_draws_it(tmp_path, capsys):
  path = tmp_path / "new" / "sheet.png"
  words = ["data", "show", "--config=digits:pretrain", f"--out={path}"]
  size = ["--images=2", "--views=1", "--config.augment.permute_patches=True"]
  assert cli.main([*words, *size]) == 0
  assert "2 of 1,097 images of digits/train" in capsys.readouterr().out
  picture = matplotlib.image.imread(path)
  assert picture.shape[0] > 300
  assert picture.std() > 0.1


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--images=0"], "--images=0 must be at least 1"),
    (["--out=sheet.doc"], "--out=sheet.doc must be a .png, .pdf or .svg"),
    (["--config.augment.crop=all"], "augment.crop='all' must be one of pad"),
  ],
)
def test_what_cannot_be_drawn_is_refused(words, message, capsys):
  assert cli.main(["data", "show", "--config=digits:pretrain", *words]) == 2
  assert message in capsys.readouterr().err


def test_the_strong_recipe_in_words():
  said = contact_sheet.in_words(config.load("cifar10:joint,strong"))
  assert said.splitlines()[1] == (
    "shifts by up to 4 px, flip, 3 views of an image a batch, RandAugment (2 "
    "of magnitude 9), 25 % erased, 50 % mixup 1 or cutmix 1"
  )
