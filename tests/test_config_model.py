"""Sizes that fit each other, and tasks that need no looking."""

import re

import jax
import numpy as np
import pytest
from flax import nnx

import relvit_jax
from relvit_jax import config, config_model
from relvit_jax.training.pieces import create_model, make_views


def leaks_of(spec, *overrides):
  return list(config_model.leaks(config.load(spec, overrides)))


@pytest.mark.parametrize(
  ("overrides", "leaks"),
  [
    ([], True),
    (["model.pos_embed=False"], False),
    (["augment.permute_patches=True"], False),
    (["augment.permute_patches=True", "augment.permute_targets_only=True"], 1),
    (["tasks=label"], False),
  ],
)
def test_a_leak_is_said_in_one_line(overrides, leaks):
  said = leaks_of("cifar10:joint", *overrides)
  assert len(said) == bool(leaks)
  for line in said:
    assert line.startswith("leak: relation and position can be told")
    assert "positional embeddings tell every patch apart; model.pos_em" in line
    assert "\n" not in line


def test_swins_bias_tells_of_the_border():
  (said,) = leaks_of("flowers102:joint,swin_tiny")
  assert "Swin's bias for each offset tells border patches apart" in said
  assert leaks_of("flowers102:pretrain,swin_tiny") == []


def test_enlarged_crops_tell_where_they_were():
  permuted = "augment.permute_patches=True"
  (said,) = leaks_of("cifar10:joint,swin_tiny", permuted)
  assert said.startswith("leak: crops of 32 pixels, enlarged to 224, show rel")
  assert (
    leaks_of("cifar10:joint,swin_tiny", permuted, "augment.crop=none") == []
  )


def test_t2t_vit_sees_the_border_without_any_positions():
  (said,) = leaks_of("flowers102:pretrain,t2t_vit_14")
  assert "first tokens see zeros around the image; augment.permute" in said
  assert "pos_embed=False" not in said


@pytest.mark.parametrize(
  ("backbone", "pos_embed", "leaks", "sizes"),
  [
    ("vit", True, True, {"patch_size": 8, "depth": 1, "num_heads": 2}),
    ("vit", False, False, {"patch_size": 8, "depth": 1, "num_heads": 2}),
    ("swin", False, False, {
      "patch_size": 4, "depth": (1, 1), "num_heads": (1, 1), "window_size": 2,
    }),
    ("t2t_vit", False, True, {"depth": 1, "num_heads": 2, "token_dim": 8}),
  ],
)  # fmt: skip
def test_only_what_leaks_tells_patches_of_one_colour_apart(
  backbone, pos_embed, leaks, sizes
):
  # Not the mean colour, which is 0, as what is padded.
  images = np.ones((1, 64, 64, 3), np.float32)

  @jax.jit
  def tokens(images):
    return relvit_jax.create_model(
      backbone,
      image_size=64,
      embed_dim=16,
      pos_embed=pos_embed,
      **sizes,
      rngs=nnx.Rngs(0),
    ).backbone(images)

  patches = np.asarray(tokens(images).patches[0])
  spread = np.abs(patches - patches[:1]).max()
  assert spread > 1e-2 if leaks else spread < 1e-4


def problems(spec, *overrides):
  settings = config.load(spec, overrides)
  return list(config_model.problems(settings))


def make(spec, *overrides):
  """The shapes of the model that training would make."""
  settings = config.load(spec, overrides)
  view = make_views(settings, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
  return nnx.eval_shape(
    lambda: create_model(settings, view, 10, nnx.Rngs(0), "cpu")
  )


@pytest.mark.parametrize(
  ("spec", "overrides"),
  [
    ("cifar10:joint,swin_tiny", ["model.depth=2,2", "model.num_heads=3,6"]),
    ("cifar10:joint,swin_tiny,64", []),
    ("cifar10:joint,swin_tiny,96", []),
    ("cifar10:supervised,swin_tiny,32", []),
    ("cifar10:joint,swin_tiny,256", ["augment.mega_patches=4"]),
    ("cifar10:joint,vit_small,96", []),
    ("cifar10:joint,vit_small,128", ["augment.mega_patches=5"]),
    ("tiny_imagenet:joint,t2t_vit_7,64", ["model.token_dim=32"]),
    ("cifar10:joint,vit", ["model.depth=3", "model.num_heads=12"]),
  ],
)
def test_sizes_are_free_where_they_fit(spec, overrides):
  shallow = ["model.depth=1"] if "swin" not in spec else []
  assert problems(spec, *shallow, *overrides) == []
  grid = make(spec, *shallow, *overrides).grid_size
  assert min(grid) >= (2 if "joint" in spec else 1)


@pytest.mark.parametrize(
  ("spec", "overrides", "said"),
  [
    (
      "cifar10:joint,swin_tiny",
      ["augment.mega_patches=5"],
      "window_size=7 cuts no whole 7×7 windows out of the 40×40 .* would do",
    ),
    (
      "cifar10:joint,swin_tiny,64",
      ["model.window_size=7"],
      "window_size=7 cuts no whole 7×7 windows out of the 16×16 tokens",
    ),
  ],
)
def test_windows_must_fit_every_stage_as_the_model_would_say(
  spec, overrides, said
):
  (problem,) = problems(spec, *overrides)
  assert re.match("model." + said, problem), problem
  with pytest.raises(ValueError, match=said):
    make(spec, *overrides)


def test_all_that_does_not_fit_is_said():
  said = problems(
    "cifar10:joint,t2t_vit", "model.window_size=7", "model.num_heads=5"
  )
  assert said == ["model.window_size=7 must be None: t2t_vit has none"]
  said = problems(
    "cifar10:joint,t2t_vit", "data.image_size=48", "model.num_heads=5"
  )
  assert [line.split()[0] for line in said] == [
    "data.image_size=48",
    "model.num_heads=5",
  ]
