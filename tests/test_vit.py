"""The backbone's contract: images → Tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from relvit_jax import grid
from relvit_jax.models import layers, vit
from relvit_jax.models.vit import ViT


def make(**options):
  defaults = {"embed_dim": 12, "depth": 3, "num_heads": 3}
  return ViT((12, 8), 4, rngs=nnx.Rngs(0), **(defaults | options))


def images(batch=2):
  return jax.random.normal(jax.random.key(1), (batch, 12, 8, 3))


def test_tokens_of_a_grid_that_is_not_square():
  model = make()
  patches, cls, local = model(images())
  assert model.grid_size == (3, 2)
  assert patches.shape == local.shape == (2, 6, 12)
  assert cls is not None
  assert cls.shape == (2, 12)


def test_without_a_class_token_there_is_none():
  model = make(cls_token=False)
  patches, cls, local = model(images())
  assert patches.shape == local.shape == (2, 6, 12)
  assert cls is None
  assert model.pos_embed[...].shape == (1, 6, 12)


@pytest.mark.parametrize("cls_token", [True, False])
def test_local_tokens_are_the_patches_before_the_last_norm(cls_token):
  model = make(depth=1, cls_token=cls_token)
  tokens = model(images())
  np.testing.assert_allclose(
    model.norm(tokens.local), tokens.patches, atol=1e-6
  )
  assert not np.allclose(tokens.local, tokens.patches, atol=1e-2)


def test_sinusoids():
  np.testing.assert_allclose(
    vit.sinusoids(3, 4)[0],
    [
      [0, 1, 0, 1],
      [0.841471, 0.540302, 0.01, 0.99995],
      [0.909297, -0.416147, 0.019999, 0.9998],
    ],
    atol=1e-6,
  )


@pytest.mark.parametrize(("cls_token", "length"), [(True, 7), (False, 6)])
def test_fixed_positions_are_sinusoids_and_not_trained(cls_token, length):
  """The class token, if any, stands at 0, and the patches in a line."""
  model = make(pos_embed_type="sinusoidal", cls_token=cls_token, depth=1)
  assert isinstance(model.pos_embed, layers.Fixed)
  np.testing.assert_array_equal(model.pos_embed[...], vit.sinusoids(length, 12))
  assert "pos_embed" not in nnx.to_pure_dict(nnx.state(model, nnx.Param))
  without = make(pos_embed=False, cls_token=cls_token, depth=1)
  added = model._embed(images()) - without._embed(images())
  np.testing.assert_allclose(added[1], vit.sinusoids(length, 12)[0], atol=1e-5)


def test_under_the_diagonal_mask_a_patch_knows_itself_alone():
  """In every block: each token attends to itself with all its weight."""
  model = make(attention_mask="diagonal")
  for block in range(3):
    np.testing.assert_array_equal(
      model.attention(images(), block),
      np.broadcast_to(np.eye(7), (2, 3, 7, 7)),
    )
  changed = images().at[:, :4, :4].set(0.0)
  here, there = model(images()), model(changed)
  np.testing.assert_array_equal(here.cls, there.cls)
  np.testing.assert_array_equal(here.patches[:, 1:], there.patches[:, 1:])
  assert not np.allclose(here.patches[:, 0], there.patches[:, 0])


def test_the_class_tokens_row_may_be_left_free():
  model = make(attention_mask="diagonal_cls_row", depth=1)
  weights = model.attention(images())
  expected = np.broadcast_to(np.eye(7)[1:], (2, 3, 6, 7))
  np.testing.assert_array_equal(weights[:, :, 1:], expected)
  np.testing.assert_array_equal(
    weights[:, :, 0], make(depth=1).attention(images())[:, :, 0]
  )


def test_the_mask_holds_while_training():
  model = make(attention_mask="diagonal", depth=1)
  np.testing.assert_array_equal(
    model(images(), train=True, rngs=nnx.Rngs(dropout=0)).patches,
    model(images()).patches,
  )


def test_without_a_bias_query_key_and_value_are_linear():
  assert make(qkv_bias=False).blocks[2].attn.qkv.bias is None
  assert make().blocks[2].attn.qkv.bias is not None


def test_without_positional_embedding_patches_are_a_set():
  """So permuting patches is no task for such a model: a free check."""
  model = make(pos_embed=False)
  order = np.array([[4, 2, 0, 5, 1, 3]] * 2)
  patches = grid.patchify(images(), 4)
  shuffled = jnp.take_along_axis(patches, order[:, :, None], axis=1)
  there = model(grid.unpatchify(shuffled, (3, 2), 4))
  here = model(images())
  np.testing.assert_allclose(there.cls, here.cls, atol=1e-5)
  np.testing.assert_allclose(
    there.patches,
    np.take_along_axis(np.asarray(here.patches), order[:, :, None], 1),
    atol=1e-5,
  )


def test_with_positional_embedding_their_order_shows():
  model = make()
  flipped = images()[:, ::-1]
  assert not np.allclose(model(flipped).cls, model(images()).cls, atol=1e-5)


def test_no_parameter_is_made_that_is_not_used():
  names = set(nnx.to_pure_dict(nnx.state(make(pos_embed=False), nnx.Param)))
  assert names == {"blocks", "cls_token", "norm", "patch_embed"}


def test_drop_path_grows_linearly_from_the_first_block():
  model = make(drop_path_rate=0.2)
  np.testing.assert_allclose(model.drop_path_rates, [0, 0.1, 0.2])


def test_attention_of_a_block():
  model = make()
  last = model.attention(images())
  assert last.shape == (2, 3, 7, 7)
  np.testing.assert_allclose(last.sum(axis=-1), 1, atol=1e-6)
  np.testing.assert_array_equal(last, model.attention(images(), block=2))
  assert not np.allclose(last, model.attention(images(), block=0))


def test_attention_is_that_of_the_forward_pass():
  """What the last block adds is its weights applied to its values."""
  model = make(depth=1)
  block = model.blocks[0]
  block.mlp.fc2.kernel.set_value(jnp.zeros((48, 12)))
  x = model._embed(images())
  qkv = block.attn.qkv(block.norm1(x)).reshape(2, 7, 3, 3, 4)
  mixed = jnp.einsum("bhij,bjhd->bihd", model.attention(images()), qkv[:, :, 2])
  added = block.attn.proj(mixed.reshape(2, 7, 12))
  np.testing.assert_allclose(
    model(images()).cls, model.norm(x + added)[:, 0], atol=1e-5
  )


@pytest.mark.parametrize(
  "rate", ["dropout_rate", "attention_dropout_rate", "drop_path_rate"]
)
def test_every_rate_reaches_the_blocks(rate):
  model = make(**{rate: 0.5})
  model.dropout = nnx.Dropout(0.0)  # That of the embedding is not meant.
  dropped = model(images(), train=True, rngs=nnx.Rngs(dropout=0))
  assert not np.allclose(dropped.cls, model(images()).cls, atol=1e-3)


def test_scanning_the_layers_changes_no_number():
  plain, scanned = (
    make(scan_layers=scan, drop_path_rate=0.5) for scan in (False, True)
  )
  for train in (False, True):
    tokens = [
      model(images(), train=train, rngs=nnx.Rngs(dropout=0)).patches
      for model in (plain, scanned)
    ]
    np.testing.assert_allclose(*tokens, atol=1e-5)


def test_tokens_of_the_last_blocks_end_with_the_output():
  model = make()
  two = model.last_tokens(images(), 2)
  assert len(two) == 2
  np.testing.assert_array_equal(two[-1].patches, model(images()).patches)
  assert not np.allclose(two[0].patches, two[1].patches)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: make()(jnp.zeros((1, 8, 12, 3))), r"not \[B, 12, 8, 3\]"),
    (lambda: make().attention(images(), block=3), "block=3 is not among the 3"),
    (lambda: make().last_tokens(images(), 4), "num_blocks=4 is not among"),
    (lambda: make().last_tokens(images(), 0), "num_blocks=0 is not among"),
    (
      lambda: ViT(
        (12, 8), 5, embed_dim=12, depth=1, num_heads=3, rngs=nnx.Rngs(0)
      ),
      "patch_size=5 must divide",
    ),
    (
      lambda: make(pos_embed_type="rotary"),
      "pos_embed_type='rotary' does not exist; there are learned, sinusoidal",
    ),
    (
      lambda: make(pos_embed_type="sinusoidal", pos_embed=False),
      "pos_embed_type='sinusoidal' needs pos_embed=True",
    ),
    (
      lambda: make(attention_mask="causal"),
      "attention_mask='causal' does not exist; there are diagonal,",
    ),
    (
      lambda: make(attention_mask="diagonal_cls_row", cls_token=False),
      "attention_mask='diagonal_cls_row' needs cls_token=True",
    ),
  ],
)
def test_what_does_not_fit_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
