"""From a config to the pieces of a stage."""

import jax.numpy as jnp
import pytest
from flax import nnx

from relvit_jax import config
from relvit_jax.training import pieces


def test_patches_are_moved_as_the_heads_of_swin_see_them():
  settings = config.load("flowers102:pretrain,swin_tiny")
  view = pieces.make_views(settings, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
  assert view.patch_size == 32
  model = nnx.eval_shape(
    lambda: pieces.create_model(settings, view, 102, nnx.Rngs(0), "cpu")
  )
  assert model.grid_size == (7, 7)


def test_there_is_a_question_where_there_is_a_head_for_it():
  asked = config.load("cifar10:supervised,drloc,swin_tiny")
  assert pieces.localisation_of(asked).num_pairs == 64
  assert pieces.localisation_of(config.load("cifar10:supervised")) is None


@pytest.mark.parametrize(
  ("platform", "dtype"), [("cpu", jnp.float32), ("gpu", jnp.bfloat16)]
)
def test_a_model_computes_in_what_its_devices_are_made_for(platform, dtype):
  settings = config.load("cifar10:pretrain,vit_tiny", ["model.depth=1"])
  view = pieces.make_views(settings, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))

  def tokens():
    model = pieces.create_model(settings, view, 10, nnx.Rngs(0), platform)
    return model.backbone(jnp.zeros((1, 32, 32, 3))).patches

  assert nnx.eval_shape(tokens).dtype == dtype


@pytest.mark.parametrize(
  ("image_size", "block", "rows"),
  [(32, None, 0), (128, None, 128), (128, 0, 0), (32, 5, 5)],
)
def test_large_grids_are_judged_in_blocks(image_size, block, rows):
  settings = config.load("cifar10:pretrain")
  settings.loss.pair_block = block
  grid_size = (image_size // 4, image_size // 4)
  assert pieces.make_pair_blocks(settings, grid_size, True).rows == rows


def test_official_relation_dropout_waits_for_smoothing():
  settings = config.load("cifar10:pretrain")
  settings.loss.relation_dropout = 0.5

  def dropout():
    return pieces.make_pair_blocks(settings, (8, 8), True).relation_dropout

  assert dropout() == 0.5
  settings.loss.relation_dropout_needs_smoothing = True
  assert dropout() == 0
  settings.loss.relation_smoothing = 0.1
  assert dropout() == 0.5
  while_evaluating = pieces.make_pair_blocks(settings, (8, 8), False)
  assert while_evaluating.relation_smoothing == 0
