"""From pre-training to fine-tuning: what is taken, and what is not."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import relvit_jax
from relvit_jax.training import model_arrays, step, transfer


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


def test_sinusoids_of_another_grid_stay_the_targets_own():
  """T2T-ViT has more tokens than patches: its table is not to be resized."""

  def filled(image_size):
    model = nnx.eval_shape(
      lambda: relvit_jax.create_model(
        "t2t_vit",
        image_size=image_size,
        **{"embed_dim": 12, "depth": 1, "num_heads": 2, "token_dim": 4},
        rngs=nnx.Rngs(0),
      )
    )
    return jax.tree.map(
      lambda leaf: np.full(leaf.shape, image_size, leaf.dtype),
      nnx.to_pure_dict(nnx.state(model)),
    )

  source, target = filled(32), filled(64)
  moved = transfer.backbone(source, target, ((1, 1), (2, 2)))
  assert moved.fresh["backbone/pos_embed"] == (
    "shape (1, 5, 12) there, (1, 17, 12) here"
  )
  attention = moved.params["backbone"]["tokens_to_token"]["attention1"]
  np.testing.assert_array_equal(attention["w"], 32)


@pytest.mark.parametrize("patch_size", [2, 4])
def test_positions_that_are_not_learned_stay_the_targets(patch_size):
  source = params(0, tasks=("label",), patch_size=2)
  target = params(1, tasks=("label",), patch_size=patch_size)
  grids = ((4, 4), (8 // patch_size, 8 // patch_size))
  moved = transfer.backbone(source, target, grids, own_positions=True)
  assert moved.fresh["backbone/pos_embed"] == "not learned"
  np.testing.assert_array_equal(
    moved.params["backbone"]["pos_embed"], target["backbone"]["pos_embed"]
  )


def test_an_average_begins_with_the_weights_that_were_taken(source, target):
  state = make_state(target, heads_only=False)
  state = dataclasses.replace(state, average=state.params)
  state, _ = transfer.start(state, source)
  chex.assert_trees_all_equal(state.average, state.params)
  for mean, own in zip(
    jax.tree.leaves(state.average), jax.tree.leaves(state.params), strict=True
  ):
    assert mean is not own


def test_another_shape_is_not_taken(source):
  moved = transfer.backbone(source, params(1, tasks=("label",), patch_size=4))
  assert moved.fresh["backbone/patch_embed/proj/kernel"] == (
    "shape (12, 12) there, (48, 12) here"
  )


def test_positional_embeddings_are_resized_to_another_grid():
  source = params(0, tasks=("label",), patch_size=2)
  target = params(1, tasks=("label",), patch_size=4)
  moved = transfer.backbone(source, target, grids=((4, 4), (2, 2)))
  assert moved.taken["backbone/pos_embed"] == (
    "resized from 4×4 to 2×2 patches"
  )
  assert moved.params["backbone"]["pos_embed"].shape == (1, 5, 12)


def test_resizing_keeps_the_class_token_and_what_is_smooth():
  rows, columns = np.mgrid[:6, :12].astype(np.float32)
  embedding = np.concatenate(
    [np.full((1, 2), 9.0), np.stack([rows, columns], -1).reshape(-1, 2)]
  )[None]
  resized = np.asarray(
    transfer.resize_pos_embed(jnp.float32(embedding), (6, 12), (3, 24))
  )
  np.testing.assert_array_equal(resized[0, 0], [9, 9])
  grid = resized[0, 1:].reshape(3, 24, 2)
  # A ramp stays a ramp away from the borders.
  np.testing.assert_allclose(np.diff(grid[1, 6:-6, 1]), 0.5, atol=1e-5)
  np.testing.assert_allclose(grid[1, :, 0], 2.5, atol=1e-5)
  same = transfer.resize_pos_embed(jnp.float32(embedding), (6, 12), (6, 12))
  np.testing.assert_allclose(same, embedding, atol=1e-6)


def test_the_report_says_it_in_words(source, target):
  assert str(transfer.backbone(source, target)) == (
    "taken: 29 arrays of the backbone\n"
    "fresh: backbone/pos_embed (not in the source); heads/label/proj, "
    "heads/position/proj (a head)\n"
    "left: heads/position/proj, heads/relation/key, heads/relation/query"
  )


def make_state(tree, heads_only):
  trained = {"heads": tree["heads"]} if heads_only else tree
  fixed = {"backbone": tree["backbone"]} if heads_only else {}
  return step.TrainState(0, None, trained, fixed, None)


@pytest.mark.parametrize("heads_only", [False, True])
def test_a_state_starts_with_the_weights_frozen_or_not(
  source, target, heads_only
):
  state, _ = transfer.start(make_state(target, heads_only), source)
  found = model_arrays.joined(state.params, state.fixed)
  np.testing.assert_array_equal(
    found["backbone"]["norm"]["scale"], source["backbone"]["norm"]["scale"]
  )
  np.testing.assert_array_equal(
    found["backbone"]["blocks"][1]["mlp"]["fc1"]["kernel"],
    source["backbone"]["blocks"][1]["mlp"]["fc1"]["kernel"],
  )


def test_weights_of_which_nothing_fits_are_refused(target):
  wide = params(0, tasks=("label",), embed_dim=24)
  with pytest.raises(ValueError, match=r"(?s)no array .* fits .*\(1, 1, 24\)"):
    transfer.start(
      make_state(target, False),
      {"backbone": {"cls_token": wide["backbone"]["cls_token"]}},
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
