"""Sizes that fit each other, and tasks that need no looking."""

import pytest

from relvit_jax import config, config_model


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
  said = config_model.leak(config.load("cifar10:joint", overrides))
  assert (said is not None) == bool(leaks)
  if said:
    assert said.startswith("leak: model.pos_embed=True lets relation and pos")
    assert "\n" not in said


def test_swins_bias_gives_away_less():
  said = config_model.leak(config.load("cifar10:joint,swin_tiny"))
  assert said is not None
  assert "helps with relation and position: Swin's bias" in said


def problems(spec, *overrides):
  settings = config.load(spec, overrides)
  return list(config_model.problems(settings))


@pytest.mark.parametrize(
  ("spec", "overrides"),
  [
    ("cifar10:joint,swin_tiny", ["model.depth=2,2", "model.num_heads=3,6"]),
    ("cifar10:joint,swin_tiny,64", ["model.patch_size=2"]),
    ("tiny_imagenet:joint,t2t_vit_7,64", ["model.token_dim=32"]),
    ("cifar10:joint,vit", ["model.depth=3", "model.num_heads=12"]),
  ],
)
def test_sizes_are_free_where_they_fit(spec, overrides):
  assert problems(spec, *overrides) == []


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
    "model.patch_size=None",
    "model.num_heads=5",
  ]
