"""The backbone's contract: images → Tokens, in stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import relvit_jax
from relvit_jax import grid
from relvit_jax.models import swin, variants

TASKS = ("relation", "distance", "angle", "position", "label")


def make(image_size=(16, 32), patch_size=2, **options):
  """Grids 8×16 and 4×8, windows of 4×4; the second stage shifts none."""
  defaults = {
    "embed_dim": 4,
    "depth": (2, 2),
    "num_heads": (1, 2),
    "window_size": 4,
  }
  return swin.Swin(
    image_size, patch_size, rngs=nnx.Rngs(0), **(defaults | options)
  )


def outline(*sizes, **options):
  """The same without weights, where only the making of it is asked for."""
  return nnx.eval_shape(lambda: make(*sizes, **options))


def images(height=16, width=32):
  return jax.random.normal(jax.random.key(1), (2, height, width, 3))


run = nnx.jit(lambda model, images: model(images))


@pytest.fixture(scope="module")
def model():
  return make()


@pytest.fixture(scope="module")
def tokens(model):
  return run(model, images())


def test_tokens_of_a_grid_that_is_not_square(model, tokens):
  patches, cls, local = tokens
  assert patches.shape == local.shape == (2, 4 * 8, 8)
  assert cls is None
  assert (model.grid_size, model.embed_dim) == ((4, 8), 8)


def test_a_classifier_reads_the_average_of_the_tokens(model, tokens):
  features = model.features(tokens)
  assert features.shape == (2, model.num_features) == (2, 8)
  np.testing.assert_allclose(
    features, np.mean(tokens.patches, axis=1), atol=1e-6
  )


def test_local_tokens_are_those_before_the_last_norm(model, tokens):
  np.testing.assert_allclose(
    model.norm(tokens.local), tokens.patches, atol=1e-5
  )
  assert not np.allclose(tokens.local, tokens.patches, atol=1e-2)


def windows_and_shifts(model):
  blocks = [stage.blocks[1].attn for stage in model.layers]
  return [(attn.window, attn.shift) for attn in blocks]


def test_windows_shrink_to_a_late_grid_and_then_stay_in_place():
  """Grids of 16, 8, 4 and 2 tokens a side."""
  model = outline(
    (64, 64), 4, depth=(2, 2, 2, 2), num_heads=(1, 1, 1, 1), window_size=8
  )
  assert windows_and_shifts(model) == [(8, 4), (8, 0), (4, 0), (2, 0)]


def test_the_shorter_side_of_a_grid_decides_whether_windows_shift(model):
  """As in the official code: the second stage has two windows, side by side."""
  assert windows_and_shifts(model) == [(4, 2), (4, 0)]


def test_without_positional_biases_a_single_window_sees_a_set_of_patches():
  """So that permuting patches is no task for it."""
  model = make(
    (8, 8), 2, depth=(2,), num_heads=(2,), window_size=4, pos_embed=False
  )
  order = np.random.default_rng(0).permutation([np.arange(16)] * 2, axis=1)
  there = images(8, 8)
  patches = np.take_along_axis(
    np.asarray(grid.patchify(there, 2)), order[:, :, None], axis=1
  )
  shuffled = grid.unpatchify(jnp.asarray(patches), (4, 4), 2)
  np.testing.assert_allclose(
    run(model, shuffled).patches,
    np.take_along_axis(
      np.asarray(run(model, there).patches), order[:, :, None], axis=1
    ),
    atol=1e-5,
  )


@pytest.mark.parametrize("pos_embed", [True, False])
def test_positional_biases_are_the_only_trace_of_pos_embed(pos_embed):
  paths = [
    "/".join(map(str, path))
    for path, _ in nnx.to_flat_state(nnx.state(outline(pos_embed=pos_embed)))
  ]
  tables = [path for path in paths if path.endswith("bias_table")]
  assert len(tables) == 4 * pos_embed
  assert len(paths) - len(tables) == 4 + 4 * 12 + 3 + 2


def test_only_parameters_are_kept(model):
  """Masks and tables of indices are constants of the program."""
  kept = nnx.to_flat_state(nnx.state(model))
  assert {type(leaf) for _, leaf in kept} == {nnx.Param}


def test_drop_path_grows_linearly_over_all_stages():
  model = outline(depth=(2, 3), drop_path_rate=0.4)
  np.testing.assert_allclose(model.drop_path_rates, [0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
  "rate", ["dropout_rate", "attention_dropout_rate", "drop_path_rate"]
)
def test_every_rate_reaches_the_blocks(rate):
  model = make((8, 8), 2, depth=(2,), num_heads=(2,), **{rate: 0.5})
  model.dropout = nnx.Dropout(0.0)  # That of the embedding is not meant.
  dropped = nnx.jit(
    lambda model, images: (
      model(images, train=True, rngs=nnx.Rngs(dropout=0)).patches
    )
  )(model, images(8, 8))
  plain = run(model, images(8, 8)).patches
  assert not np.allclose(dropped, plain, atol=1e-5)


def test_attention_of_a_block_is_over_the_grid_of_its_stage(model):
  attention = nnx.jit(swin.Swin.attention, static_argnames="block")
  last = attention(model, images())
  assert last.shape == (2, 2, 32, 32)
  np.testing.assert_allclose(last.sum(axis=-1), 1, atol=1e-6)
  np.testing.assert_array_equal(last, attention(model, images(), block=3))
  shifted = attention(model, images(), block=1)
  assert shifted.shape == (2, 1, 128, 128)
  # In a shifted window of 4×4 tokens; at the corner one of 2×2 is left.
  assert (np.asarray(shifted[0, 0, 2 * 16 + 2]) > 0).sum() == 16
  assert (np.asarray(shifted[0, 0, 0]) > 0).sum() == 4


def test_tokens_of_the_last_blocks_end_with_the_output(model, tokens):
  two = nnx.jit(lambda model, images: model.last_tokens(images, 2))(
    model, images()
  )
  assert len(two) == 2
  np.testing.assert_allclose(two[-1].patches, tokens.patches, atol=1e-6)
  assert not np.allclose(two[0].patches, two[1].patches)


SMALL = {"embed_dim": 12, "depth": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}


def created(backbone="swin", **options):
  defaults = {"image_size": 224, "patch_size": 4, "tasks": ("label",)}
  return nnx.eval_shape(
    lambda: relvit_jax.create_model(
      backbone, num_classes=1000, rngs=nnx.Rngs(0), **(defaults | options)
    )
  )


# As the official repository counts them, in millions, with 1,000 classes.
MILLIONS = {"swin_tiny": 28.29, "swin_small": 49.61, "swin_base": 87.77}


def millions(model):
  sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
  return round(sum(sizes) / 1e6, 2)


@pytest.mark.parametrize(
  "backbone", [name for name in variants.SIZES if name.startswith("swin")]
)
def test_parameter_counts(backbone):
  assert millions(created(backbone)) == MILLIONS[backbone]


def shapes_of_outputs(model, height, width):
  outputs = nnx.eval_shape(
    lambda model, images: model(images),
    model,
    jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32),
  )
  return {task: output.shape for task, output in outputs.items()}


def test_heads_see_7x7_patches_of_224_pixels():
  model = created("swin_tiny", tasks=TASKS)
  assert model.grid_size == (7, 7)
  assert shapes_of_outputs(model, 224, 224) == {
    "relation": (2, 9, 49, 49),
    "distance": (2, 49, 49),
    "angle": (2, 49, 49),
    "position": (2, 49, 49),
    "label": (2, 1000),
  }


def test_any_size_that_divides_will_do():
  model = created(
    image_size=(64, 32), tasks=("position",), **SMALL, window_size=8
  )
  assert shapes_of_outputs(model, 64, 32) == {"position": (2, 2, 2)}


def test_a_class_token_is_nothing_to_ask_of_it():
  with_it, without = (
    created(**SMALL, cls_token=cls_token) for cls_token in (True, False)
  )
  assert millions(with_it) == millions(without)


def test_bfloat16_tokens_are_close(tokens):
  half = run(make(dtype=jnp.bfloat16), images()).patches
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(half.astype(jnp.float32), tokens.patches, atol=0.1)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"image_size": 100}, "image_size=100×100 must be a multiple of 32"),
    ({"patch_size": 0}, "image_size=224×224 .* patch_size=0"),
    (
      {"window_size": 57},
      r"window_size=57 must be .* from 1 to .* 56×56 tokens of stage 0; 1, 7, "
      "14, 28, 56 would do",
    ),
    ({"window_size": 0}, "window_size=0 must be a positive number"),
    (
      {"image_size": 256},
      "window_size=7 cuts no whole 7×7 windows out of the 64×64 tokens of "
      "stage 0; 1, 2, 4, 8, 16, 32, 64 would do",
    ),
    (
      {"image_size": (128, 192), "window_size": 4},
      "cuts no whole 4×4 windows out of the 4×6 tokens of stage 3; 1, 2 would",
    ),
    ({"depth": 12}, "depth=12 must be whole numbers above 0, one a stage"),
    ({"num_heads": (3, 0, 1, 1)}, r"num_heads=\(3, 0, 1, 1\) must be whole"),
    ({"depth": (1, 1)}, "one number for each of the same stages"),
    ({"num_heads": (3, 6, 12, 25)}, "25 must divide 768, the width of stage 3"),
    ({"cls_tokens": 1}, "cls_tokens=1 is no size of a swin; .*window_size"),
    ({"attention_mask": "diagonal"}, "'diagonal' is no size of a swin"),
    ({"cls_to_patches": True}, "cls_to_patches=True: this swin has no class"),
  ],
)
def test_what_cannot_be_made_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    created(**options)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (
      lambda model: model(jnp.zeros((1, 32, 16, 3))),
      r"not \[B, 16, 32, 3\]",
    ),
    (
      lambda model: model.attention(images(), block=4),
      "block=4 is not among the 4 blocks",
    ),
    (
      lambda model: model.last_tokens(images(), 3),
      "num_blocks=3 is not among the 2 blocks of the last stage",
    ),
    (lambda model: model.last_tokens(images(), 0), "num_blocks=0 is not among"),
  ],
)
def test_what_does_not_fit_is_refused(model, call, message):
  with pytest.raises(ValueError, match=message):
    call(model)
