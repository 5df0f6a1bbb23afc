"""From pre-training to fine-tuning: what is taken, and what is not."""

import jax
import numpy as np
import pytest
from flax import nnx

import relvit_jax
from relvit_jax.training import transfer


def params(seed, **options):
  model = relvit_jax.create_model(
    "vit",
    image_size=8,
    **(
      {"patch_size": 2, "embed_dim": 12, "depth": 2, "num_heads": 2} | options
    ),
    num_classes=10,
    rngs=nnx.Rngs(seed),
  )
  return nnx.to_pure_dict(nnx.state(model, nnx.Param))


@pytest.fixture
def source():
  return params(0, tasks=("relation", "position"), pos_embed=False)


@pytest.fixture
def target():
  return params(1, tasks=("label", "position"))


def test_the_backbone_is_taken_and_heads_stay_fresh(source, target):
  moved = transfer.backbone(source, target)
  for leaf, theirs in zip(
    jax.tree.leaves(moved.params["backbone"]["blocks"]),
    jax.tree.leaves(source["backbone"]["blocks"]),
    strict=True,
  ):
    np.testing.assert_array_equal(leaf, theirs)
  np.testing.assert_array_equal(
    moved.params["heads"]["position"]["proj"]["kernel"],
    target["heads"]["position"]["proj"]["kernel"],
  )
  np.testing.assert_array_equal(
    moved.params["backbone"]["pos_embed"], target["backbone"]["pos_embed"]
  )


def test_it_says_what_it_took_and_why_not(source, target):
  moved = transfer.backbone(source, target)
  assert len(moved.taken) == 2 * 12 + 2 + 2 + 1  # Blocks, patches, norm, cls.
  assert moved.fresh == {
    "backbone/pos_embed": "not in the source",
    "heads/label/proj/bias": "a head",
    "heads/label/proj/kernel": "a head",
    "heads/position/proj/bias": "a head",
    "heads/position/proj/kernel": "a head",
  }
  assert moved.left == (
    "heads/position/proj/bias",
    "heads/position/proj/kernel",
    "heads/relation/key/kernel",
    "heads/relation/query/kernel",
  )


def test_another_shape_is_not_taken(source):
  moved = transfer.backbone(source, params(1, tasks=("label",), patch_size=4))
  assert moved.fresh["backbone/patch_embed/proj/kernel"] == (
    "shape (12, 12) there, (48, 12) here"
  )


def test_source_and_target_stay_as_they_were(source, target):
  before = jax.tree.map(np.array, (source, target))
  moved = transfer.backbone(source, target)
  # As the donation of a training step would.
  for leaf in jax.tree.leaves(moved.params["backbone"]["blocks"]):
    leaf.delete()
  for old, new in zip(
    jax.tree.leaves(before), jax.tree.leaves((source, target)), strict=True
  ):
    np.testing.assert_array_equal(old, new)
