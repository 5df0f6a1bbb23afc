"""create_model: what a person gets for a name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import relvit_jax
from relvit_jax.models import heads, variants

ALL = ("relation", "distance", "angle", "position", "label")
TINY = {"embed_dim": 48, "depth": 1, "num_heads": 3}


def make(backbone="vit", **options):
  defaults = {
    "image_size": 32,
    "patch_size": 4,
    "tasks": ALL,
    "num_classes": 10,
    "rngs": nnx.Rngs(0),
  }
  return relvit_jax.create_model(backbone, **(defaults | options))


def num_parameters(make_model):
  shapes = nnx.state(nnx.eval_shape(make_model), nnx.Param)
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_outputs_of_all_tasks():
  outputs = make(**TINY)(jnp.zeros((2, 32, 32, 3)))
  assert {task: output.shape for task, output in outputs.items()} == {
    "relation": (2, 9, 64, 64),
    "distance": (2, 64, 64),
    "angle": (2, 64, 64),
    "position": (2, 64, 64),
    "label": (2, 10),
  }


def test_heads_are_those_of_the_tasks():
  model = make(**TINY, tasks=("position", "relation"), num_classes=None)
  assert set(model.heads) == {"position", "relation"}


def test_a_grid_need_not_be_square():
  outputs = make(**TINY, image_size=(8, 12))(jnp.zeros((2, 8, 12, 3)))
  assert outputs["relation"].shape == (2, 9, 6, 6)
  assert outputs["position"].shape == (2, 6, 6)


def test_instead_of_all_pairs_there_may_be_queries_and_keys():
  model = make(**TINY, image_size=(8, 12))
  images = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
  outputs, dense = model(images, dense=False), model(images)
  for task in ("relation", "distance", "angle"):
    scores = heads.pair_scores(*outputs.pop(task))
    expected = dense.pop(task).reshape(scores.shape)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
  assert {task: output.shape for task, output in outputs.items()} == {
    "position": (2, 6, 6),
    "label": (2, 10),
  }


@pytest.mark.parametrize("cls_token", [True, False])
def test_the_classifier_reads_the_class_token_or_all_patches(cls_token):
  model = make(**TINY, cls_token=cls_token, image_size=8)
  images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
  tokens = model.backbone(images)
  features = tokens.cls if cls_token else tokens.patches.reshape(2, 4 * 48)
  np.testing.assert_array_equal(
    model(images)["label"], model.heads["label"](features)
  )


def pairs(rows, columns):
  """(row, column) of both ends of five pairs in each of two images."""
  draw = np.random.default_rng(0)
  ends = draw.integers(0, (rows, columns), (2, 2, 5, 2))
  return jnp.asarray(ends[0]), jnp.asarray(ends[1])


@pytest.mark.parametrize(
  ("options", "shape"),
  [
    ({}, (10, 2)),
    ({"drloc_mode": "ce"}, (10, 3, 2)),
    ({"drloc_mode": "cbr", "drloc_abs": False}, (10, 5, 2)),
  ],
)
def test_localisation_has_an_output_where_pairs_are_given(options, shape):
  model = make(**TINY, tasks=("drloc", "label"), image_size=(8, 12), **options)
  images = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
  first, second = pairs(2, 3)
  outputs = model(images, pairs=(first, second))
  assert outputs["drloc"].shape == shape
  np.testing.assert_array_equal(
    outputs["drloc"],
    model.heads["drloc"](model.backbone(images).local, first, second),
  )
  assert set(model(images)) == {"label"}


@pytest.mark.parametrize(
  ("backbone", "options", "dim", "grid_size"),
  [
    ("vit", TINY, 48, (16, 8)),
    (
      "swin",
      {"depth": (1, 1), "num_heads": (1, 1), "embed_dim": 8, "window_size": 2},
      16,
      (8, 4),
    ),
    ("t2t_vit", TINY | {"patch_size": None, "token_dim": 4}, 48, (2, 1)),
  ],
)
def test_every_family_can_localise(backbone, options, dim, grid_size):
  def localise(images):
    model = make(backbone, **options, tasks=("drloc",), image_size=(64, 32))
    assert model.heads["drloc"].layers[0].in_features == 2 * dim
    assert model.heads["drloc"].grid_size == model.grid_size == grid_size
    return model(images, pairs=pairs(*grid_size))["drloc"]

  shown = jax.ShapeDtypeStruct((2, 64, 32, 3), jnp.float32)
  assert jax.eval_shape(localise, shown).shape == (10, 2)


def test_pairs_need_a_head():
  model = make(**TINY, tasks=("label",))
  with pytest.raises(ValueError, match=r"pairs are for the drloc task.* label"):
    model(jnp.zeros((2, 32, 32, 3)), pairs=pairs(8, 8))


def test_the_class_token_may_be_added_to_the_patches():
  """For the heads that see patches; the classifier's token stays as it is."""
  images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))

  @jax.jit
  def look(images):
    model = make(**TINY, image_size=8, cls_to_patches=True)
    tokens = model.backbone(images)
    seen = tokens.patches + tokens.cls[:, None]
    expected = {
      "relation": model.heads["relation"](seen),
      "distance": model.heads["distance"](seen)[:, 0],
      "angle": model.heads["angle"](seen)[:, 0],
      "position": model.heads["position"](seen),
      "label": model.heads["label"](tokens.cls),
    }
    outputs = model(images)
    model.cls_to_patches = False
    return outputs, expected, model(images)

  outputs, expected, plain = look(images)
  for task in ALL:
    np.testing.assert_allclose(outputs[task], expected[task], atol=1e-5)
    same = np.allclose(outputs[task], plain[task], atol=1e-5)
    assert same == (task == "label"), task


def test_it_is_added_to_the_pooled_patches_of_t2t_vit():
  options = TINY | {"patch_size": None, "token_dim": 4, "cls_to_patches": True}
  shapes = jax.eval_shape(
    lambda images: make("t2t_vit", **options, image_size=64)(images),
    jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32),
  )
  assert shapes["relation"].shape == (2, 9, 4, 4)


# Embedding, positions, blocks, norm and ten classes, without pair heads.
MILLIONS = {
  "vit_tiny": 5.36,
  "vit_small": 21.34,
  "vit_base": 85.15,
  "vit_lee": 2.69,
}


@pytest.mark.parametrize(
  "backbone",
  [name for name in variants.SIZES if variants.family_of(name) == "vit"],
)
def test_parameter_counts(backbone):
  count = num_parameters(lambda: make(backbone, tasks=("label",)))
  assert round(count / 1e6, 2) == MILLIONS[backbone]


def test_the_vit_of_lee_et_al():
  """Published as 2.8 M: of 64 pixels in patches of 8, and 200 classes."""
  model = nnx.eval_shape(
    lambda: make(
      "vit_lee", image_size=64, patch_size=8, tasks=("label",), num_classes=200
    )
  )
  block = model.backbone.blocks[0]
  assert 192 / block.attn.num_heads == 16
  assert block.mlp.fc1.out_features == 384
  assert model.backbone.pos_embed.shape == (1, 65, 192)
  leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
  assert sum(leaf.size for leaf in leaves) == 2_756_744


def test_vit_is_the_papers_vit_small():
  assert num_parameters(lambda: make("vit")) == num_parameters(
    lambda: make("vit_small")
  )


def test_the_seed_decides_the_weights():
  images = jnp.ones((1, 32, 32, 3))
  first, again, other = (
    make(**TINY, rngs=nnx.Rngs(seed))(images)["label"] for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again)
  assert not np.allclose(first, other)


def test_bfloat16_outputs_are_close_and_float32():
  images = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
  full = make(**TINY)(images)
  half = make(**TINY, dtype=jnp.bfloat16)(images)
  for task in ALL:
    assert half[task].dtype == jnp.float32
    np.testing.assert_allclose(half[task], full[task], atol=0.05)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"backbone": "vit_smal"}, "backbone='vit_smal' does not exist.*vit_small"),
    ({"tasks": ("relation", "labels")}, "names 'labels'; there are relation"),
    ({"tasks": ()}, "at least one task"),
    ({"tasks": ("label", "label")}, "each once"),
    ({"num_classes": None}, "num_classes=None must be at least 1"),
    ({"num_classes": 0}, "num_classes=0 must be at least 1"),
    ({"drloc_mode": "l2"}, "drloc_mode='l2' does not exist; there are l1, ce"),
    (
      {"cls_to_patches": True, "cls_token": False},
      "cls_to_patches=True: this vit has no class token to add",
    ),
    ({"qkv_bias": "no"}, "qkv_bias='no' must be True or False"),
    ({"patch_size": None}, "patch_size=None: vit needs it, in pixels"),
    ({"token_dim": 16}, "token_dim=16 is no size of a vit"),
    ({"patch_size": 5}, "patch_size=5 must divide .* 32×32"),
    ({"embed_dim": 50, "num_heads": 3}, "num_heads=3 must divide .*=50"),
    ({"depth": 0}, "depth=0 must be a positive number"),
    ({"drop_path_rate": 1.0}, r"drop_path_rate=1.0 must be in \[0, 1\)"),
    ({"depth": (1, 2)}, r"depth=\(1, 2\) must be a positive number"),
    ({"mlp_ratio": 0.01}, "MLP of width 0"),
    ({"image_size": (8, 8, 3)}, r"image_size=\(8, 8, 3\) must be one whole"),
    ({"image_size": 8.5}, "image_size=8.5 must be one whole number"),
    ({"hidden_dim": 3}, "hidden_dim=3 is no size.*mlp_ratio"),
  ],
)
def test_what_cannot_be_made_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    make(**(TINY | options))


@pytest.mark.parametrize("size", [8, np.int64(8), [8, 8], np.array([8, 8])])
def test_an_image_size_may_be_any_whole_numbers(size):
  model = make(**TINY, image_size=size)
  assert model(jnp.zeros((1, 8, 8, 3)))["label"].shape == (1, 10)
