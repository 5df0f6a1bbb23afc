"""T2T-ViT behind the backbone's contract: images → Tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import relvit_jax
from relvit_jax.models import t2t_vit, variants, vit
from relvit_jax.training import model_arrays

TINY = {"embed_dim": 12, "depth": 2, "num_heads": 3, "token_dim": 4}


def make(image_size=(48, 80), **options):
  return t2t_vit.T2TViT(image_size, rngs=nnx.Rngs(0), **(TINY | options))


@functools.cache
def tiny():
  return make()


@functools.cache
def images(size=(48, 80)):
  return jax.random.normal(jax.random.key(1), (2, *size, 3))


def compiled(function, *arguments):
  return jax.jit(function)(*arguments)


def test_a_patch_is_the_mean_of_the_tokens_around_it():
  """Of those that there are: at a border they are fewer."""
  nine, sixteen = (jnp.arange(1.0, n + 1).reshape(1, n, 1) for n in (9, 16))
  np.testing.assert_allclose(
    t2t_vit.pool(nine, (3, 3))[0, :, 0], [3, 4, 6, 7], rtol=1e-6
  )
  np.testing.assert_allclose(
    t2t_vit.pool(sixteen, (4, 4))[0, :, 0], [3.5, 5, 9.5, 11], rtol=1e-6
  )


@pytest.mark.parametrize(
  ("image_size", "token_grid", "grid_size"),
  [
    ((224, 224), (14, 14), (7, 7)),
    ((48, 80), (3, 5), (2, 3)),
    ((64, 32), (4, 2), (2, 1)),
    ((16, 16), (1, 1), (1, 1)),
  ],
)
def test_grids(image_size, token_grid, grid_size):
  model = nnx.eval_shape(lambda: make(image_size))
  assert model.token_grid == token_grid
  assert model.grid_size == grid_size
  tokens = nnx.eval_shape(
    lambda model, images: model(images), model, jnp.zeros((2, *image_size, 3))
  )
  assert tokens.patches.shape == (2, grid_size[0] * grid_size[1], 12)
  assert tokens.cls.shape == (2, 12)


@functools.cache
def looked_into():
  """What a model says of `images` in all its ways, compiled once."""
  model = tiny()

  def look(images):
    x = model._embed(images)
    for block in model.blocks:
      x = block(x)
    return (
      model.norm(x),
      model(images),
      model.last_tokens(images, 2),
      model.attention(images),
    )

  return compiled(look, images())


@pytest.mark.long
def test_patches_are_the_pooled_tokens_of_the_last_block():
  unpooled, tokens, _, _ = looked_into()
  assert unpooled.shape == (2, 1 + 3 * 5, 12)
  np.testing.assert_allclose(
    tokens.patches, t2t_vit.pool(unpooled[:, 1:], (3, 5)), atol=1e-5
  )
  np.testing.assert_array_equal(tokens.local, tokens.patches)
  np.testing.assert_allclose(tokens.cls, unpooled[:, 0], atol=1e-5)
  np.testing.assert_array_equal(tiny().features(tokens), tokens.cls)


def test_attention_is_among_tokens_and_last_tokens_are_pooled():
  _, tokens, last, weights = looked_into()
  assert weights.shape == (2, 3, 16, 16)
  np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
  assert [tokens.patches.shape for tokens in last] == [(2, 6, 12)] * 2
  np.testing.assert_array_equal(last[-1].patches, tokens.patches)
  assert not np.allclose(last[0].patches, last[1].patches)


def test_without_a_class_token_a_classifier_reads_the_pooled_patches():
  model = nnx.eval_shape(lambda: make(cls_token=False))
  tokens = nnx.eval_shape(lambda m, shown: m(shown), model, images())
  assert tokens.cls is None
  assert model.pos_embed.shape == (1, 15, 12)
  assert model.num_features == 6 * 12


@pytest.mark.long
def test_without_positions_the_blocks_cannot_tell_tokens_apart():
  """So equal tokens stay equal, as with the sinusoids they do not."""

  def blind(pos_embed):
    model = make(pos_embed=pos_embed)
    project = model.tokens_to_token.project
    project.kernel.set_value(0 * project.kernel[...])
    return model(images()).patches

  with_them, without = compiled(lambda: (blind(True), blind(False)))
  assert np.allclose(without, without[:, :1], atol=1e-6)
  assert not np.allclose(with_them, with_them[:, :1], atol=1e-3)


def test_official_details():
  model = tiny()
  assert model.blocks[0].attn.qkv.bias is None
  assert model.blocks[1].mlp.fc1.kernel.shape == (12, 36)
  norms = (model.norm, model.blocks[0].norm1, model.blocks[1].norm2)
  assert {norm.epsilon for norm in norms} == {1e-5}
  assert set(model.drop_path_rates) == {0}
  model = nnx.eval_shape(lambda: make(drop_path_rate=0.2))
  np.testing.assert_allclose(model.drop_path_rates, [0, 0.2])


def create(backbone="t2t_vit", **options):
  defaults = {
    "image_size": 64,
    "tasks": ("relation", "distance", "angle", "position", "label"),
    "num_classes": 10,
    "rngs": nnx.Rngs(0),
  }
  return relvit_jax.create_model(backbone, **(defaults | options))


@functools.cache
def outputs(dtype=None):
  return compiled(lambda x: create(**TINY, dtype=dtype)(x), images((64, 64)))


@pytest.mark.long
def test_outputs_of_all_tasks():
  assert {task: output.shape for task, output in outputs().items()} == {
    "relation": (2, 9, 4, 4),
    "distance": (2, 4, 4),
    "angle": (2, 4, 4),
    "position": (2, 4, 4),
    "label": (2, 10),
  }


def test_random_features_and_sinusoids_are_fixed():
  _, params, fixed = compiled(lambda: model_arrays.split_model(create(**TINY)))
  shapes = jax.tree.map(jnp.shape, fixed)
  assert shapes == {
    "backbone": {
      "pos_embed": (1, 17, 12),
      "tokens_to_token": {
        "attention1": {"w": (2, 4)},
        "attention2": {"w": (2, 4)},
      },
    }
  }
  assert "pos_embed" not in params["backbone"]
  np.testing.assert_array_equal(
    fixed["backbone"]["pos_embed"], vit.sinusoids(17, 12)
  )


# Published with the official code, for 1,000 classes at 224 pixels.
MILLIONS = {
  "t2t_vit_7": 4.3,
  "t2t_vit_10": 5.9,
  "t2t_vit_12": 6.9,
  "t2t_vit_14": 21.5,
  "t2t_vit_19": 39.2,
  "t2t_vit_24": 64.1,
  "t2t_vit_t_14": 21.5,
  "t2t_vit_t_19": 39.2,
  "t2t_vit_t_24": 64.1,
}


@pytest.mark.parametrize(
  "backbone",
  [name for name in variants.SIZES if variants.family_of(name) == "t2t_vit"],
)
def test_weights_are_as_many_as_published(backbone):
  """Random features and sinusoids are counted there, too."""
  model = nnx.eval_shape(
    lambda: create(backbone, image_size=224, tasks=("label",), num_classes=1000)
  )
  count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model)))
  assert round(count / 1e6, 1) == MILLIONS[backbone]


def test_trained_parameters_of_t2t_vit_14():
  model = nnx.eval_shape(
    lambda: create(image_size=224, tasks=("label",), num_classes=1000)
  )
  leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
  assert sum(leaf.size for leaf in leaves) == 21_465_806


@pytest.mark.long
def test_bfloat16_outputs_are_close_and_float32():
  for task, output in outputs(jnp.bfloat16).items():
    assert output.dtype == jnp.float32
    np.testing.assert_allclose(output, outputs()[task], atol=0.05)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"patch_size": 16}, "patch_size=16 must not be given: t2t_vit merges"),
    ({"image_size": 40}, "image_size=40×40 must be multiples of 16 pixels"),
    ({"image_size": (64, 0)}, "image_size=64×0 must be multiples of 16"),
    ({"token_dim": 0}, "token_dim=0 must be a positive number"),
    (
      {"token_dropout_rate": 1.0},
      r"token_dropout_rate=1.0 must be in \[0, 1\)",
    ),
    ({"tokens_type": "softmax"}, "tokens_type='softmax' must be one of"),
    ({"window_size": 7}, "window_size=7 is no size of a t2t_vit.*tokens_type"),
    ({"num_heads": 5}, "num_heads=5 must divide .*embed_dim=12"),
    ({"attention_mask": "diagonal"}, "'diagonal' is no size of a t2t_vit"),
    ({"pos_embed_type": "learned"}, "'learned' is no size of a t2t_vit"),
    (
      {"cls_to_patches": True, "cls_token": False},
      "cls_to_patches=True: this t2t_vit has no class token",
    ),
  ],
)
def test_what_cannot_be_made_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    create(**(TINY | options))


def test_images_of_another_size_are_refused():
  with pytest.raises(ValueError, match=r"not \[B, 48, 80, 3\]"):
    tiny()(images((64, 64)))
