"""What follows the colon, and what it makes of a config."""

import pytest
from relvit_jax.configs import arguments, common

from relvit_jax import config
from relvit_jax.models import variants


def test_the_stage_comes_first_and_the_rest_in_any_order():
  assert arguments.parse("") == arguments.Arguments("supervised")
  assert arguments.parse("joint,drloc,224,swin_tiny") == arguments.Arguments(
    "joint", "swin_tiny", 224, drloc=True
  )
  assert common.parse("pretrain,faithful").faithful


@pytest.mark.parametrize(
  ("words", "message"),
  [
    ("swin_tiny", "the stage 'swin_tiny' does not exist; there are pretrain"),
    ("joint,stong", "'stong' does not exist; there are vit, .*,strong"),
    ("joint,strong,strong", "'strong' is one too many"),
    ("joint,32,64", "'64' is one too many"),
    ("joint,", "backbone='' does not exist"),
    ("joint,faithful,strong", "exclude one another"),
  ],
)
def test_what_it_cannot_be_is_said(words, message):
  with pytest.raises(ValueError, match=message):
    arguments.parse(words)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
@pytest.mark.parametrize("backbone", ["swin_tiny", "t2t_vit_14"])
def test_small_images_are_resized_for_backbones_that_need_it(name, backbone):
  settings = config.load(f"{name}:joint,{backbone}")
  assert settings.data.image_size == 224
  assert settings.batch_size == 64
  assert settings.augment.crop == "resized"
  assert settings.augment.eval_crop is None
  model = settings.model
  patch = variants.shown_patch(model.backbone, model.patch_size, model.depth)
  assert patch == 32


@pytest.mark.parametrize(
  ("size", "patch", "grid"),
  [
    (14, 2, 7),
    (28, 4, 7),
    (36, 4, 9),
    (56, 8, 7),
    (64, 8, 8),
    (112, 16, 7),
    (224, 32, 7),
    (70, 10, 7),
    (96, 12, 8),
    (128, 16, 8),
    (160, 20, 8),
    (256, 32, 8),
  ],
)
def test_a_vits_patches_follow_from_the_pixels(size, patch, grid):
  settings = config.load(f"cifar10:supervised,vit_small,{size}")
  assert settings.data.image_size == size
  assert settings.model.patch_size == patch
  assert size // patch == grid
  assert settings.batch_size == 256


def test_the_native_size_is_no_change():
  for name, size in (("cifar10", 32), ("flowers102", 224), ("digits", 8)):
    given, plain = (
      config.load(f"{name}:joint{words}") for words in (f",{size}", "")
    )
    assert config.differences(given, plain) == {}


@pytest.mark.parametrize(
  ("pixels", "window"), [(32, 4), (64, 4), (96, 6), (224, None), (256, 4)]
)
def test_swins_windows_fit_the_pixels(pixels, window):
  settings = config.load(f"cifar10:supervised,swin_tiny,{pixels}")
  assert settings.model.window_size == window


def test_resized_images_have_the_official_colours_of_their_size():
  native = config.load("cifar10:joint")
  assert native.data.std == (0.2470, 0.2435, 0.2616)
  resized = config.load("cifar10:joint,swin_tiny")
  assert resized.data.std == (0.2413, 0.2378, 0.2564)
  unknown = config.load("cifar10:joint,vit_small,96")
  assert unknown.data.std == native.data.std


def test_a_files_own_settings_stay_where_no_word_asks_for_others(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(
    "from relvit_jax.configs import common\n"
    "def get_config(argument='joint'):\n"
    "  arguments = common.parse(argument)\n"
    "  config = common.get_config(arguments)\n"
    "  config.batch_size = 48\n"
    "  config.data.image_size = 128\n"
    "  config.model.update(backbone='swin_tiny', patch_size=2)\n"
    "  return common.finish(config, arguments)\n"
  )
  settings = config.load(str(path))
  assert settings.batch_size == 48
  assert settings.data.image_size == 128
  assert settings.model.patch_size == 2


def test_images_of_many_sizes_are_kept_larger_than_they_are_shown():
  settings = config.load("folder:supervised,swin_tiny")
  assert (settings.data.image_size, settings.data.stored_size) == (224, 280)
  settings = config.load("flowers102:supervised,swin_tiny")
  assert (settings.data.image_size, settings.data.stored_size) == (224, 320)


@pytest.mark.parametrize(
  ("backbone", "weight"),
  [("swin_tiny", 0.5), ("t2t_vit_14", 0.1), ("vit", 0.1)],
)
def test_drloc_is_one_task_more(backbone, weight):
  settings = config.load(f"cifar10:supervised,{backbone},drloc")
  assert settings.tasks == ("label", "drloc")
  assert settings.loss.weights.drloc == weight


def test_official_swin_and_t2t_have_their_positions_while_pre_training():
  for backbone in ("swin_tiny", "t2t_vit_14"):
    ours = config.load(f"cifar10:pretrain,{backbone}")
    official = config.load(f"cifar10:pretrain,{backbone},faithful")
    assert not ours.model.pos_embed
    assert official.model.pos_embed
  assert not config.load("cifar10:pretrain,faithful").model.pos_embed
