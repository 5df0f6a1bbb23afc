"""Parity with PyTorch: weights in and out, outputs, losses, training steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import relvit_jax
from relvit_jax.interop import torch_official
from relvit_jax.models import heads
from relvit_jax.training import metrics, model_arrays, objectives, optimizer

ALL = ("relation", "distance", "angle", "position", "label")
OFFICIAL_OUTPUTS = {
  "relation": "rel",
  "distance": "dist",
  "angle": "angle",
  "position": "abs_pos",
  "label": "clf",
}


def train(model, images, labels, learning_rate, num_steps):
  """(gradient norm of the first step, summed loss of every step)."""
  graphdef, params, fixed = model_arrays.split_model(model)
  tx = optimizer.paper_adamw(learning_rate, 0.1, 1.0)

  @jax.jit
  def one(params, state):
    def loss(params):
      outputs = model_arrays.merge_model(graphdef, params, fixed)(images)
      return objectives.losses(outputs, {"label": labels}, model.grid_size)[
        "total"
      ]

    value, gradients = jax.value_and_grad(loss)(params)
    updates, state = tx.update(gradients, state, params)
    params = optax.apply_updates(params, updates)
    return params, state, value, optax.tree.norm(gradients)

  state, curve, norms = tx.init(params), [], []
  for _ in range(num_steps):
    params, state, value, norm = one(params, state)
    curve.append(float(value))
    norms.append(float(norm))
  return norms[0], curve


T2T = {
  "backbone": "t2t_vit",
  "image_size": (48, 80),
  "patch_size": None,
  "token_dim": 4,
}

# What PyTorch 2.13 computed, in float32 on a CPU and written independently of
# this package, for a ViT of 12 wide, 2 deep, 3 heads on 12×8 images with patch
# 4, and for a T2T-ViT of the same size on 48×80 images, with tokens of 4 wide,
# which the heads see as 2×3; AdamW with rate 0.01. Parameter i in the order of
# sorted official names is default_rng([7, i]).normal(0, 0.3).
TINY = {
  "all tasks": {
    "model": {"tasks": ALL},
    "loss": {
      "relation": 2.2071242,
      "distance": 0.456561,
      "angle": 0.6110744,
      "position": 1.9840426,
      "label": 1.1518846,
    },
    "label": [
      [-0.255992, 0.114576, -0.262975, 0.416854],
      [-0.254874, 0.122184, -0.266843, 0.36044],
    ],
    "relation of patch 0 to 1": [
      *(0.038926, -0.027319, 0.208885, 0.007495, -0.079729),
      *(0.002727, 0.055403, -0.010606, -0.020929),
    ],
    "norm": 2.6263256,
    "curve": [6.410687, 5.911674, 5.68509, 5.509641],
  },
  "no class token": {
    "model": {
      "tasks": ("relation", "label"),
      "pos_embed": False,
      "cls_token": False,
    },
    "loss": {"relation": 2.2031767, "label": 1.8775941},
    "label": [
      [0.775381, -1.043774, -0.746701, -0.824947],
      [-0.426921, -0.97616, -0.830645, -0.529175],
    ],
    "relation of patch 0 to 1": [
      *(-0.013115, -0.136338, 0.001966, 0.047716, 0.029637),
      *(0.016433, 0.046209, 0.007431, -0.01712),
    ],
    "norm": 3.9324364,
    "curve": [4.080771, 3.219481, 2.786171, 2.558979],
  },
  # What the official code has and none of its scripts turns on; frozen
  # positions are random numbers there, and here.
  "masked, class token added, positions fixed, no bias": {
    "model": {
      "attention_mask": "diagonal_cls_row",
      "cls_to_patches": True,
      "pos_embed_type": "sinusoidal",
      "qkv_bias": False,
    },
    "loss": {
      "relation": 2.2056546,
      "distance": 0.3649237,
      "angle": 0.6221106,
      "position": 1.847483,
      "label": 1.3885022,
    },
    "label": [
      [-0.533322, 0.107654, 0.324057, -0.109978],
      [-0.486353, 0.043859, 0.205354, -0.113241],
    ],
    "relation of patch 0 to 1": [
      *(-0.022065, -0.163667, -0.19528, -0.545279, 0.238458),
      *(0.387459, -0.018882, -0.00637, -0.053241),
    ],
    "norm": 3.1489167,
    "curve": [6.428674, 6.002088, 5.775614, 5.626569],
  },
  "T2T-ViT with performers": {
    "model": T2T,
    "loss": {
      "relation": 2.2024376,
      "distance": 0.3750741,
      "angle": 0.4440914,
      "position": 1.8873762,
      "label": 1.956771,
    },
    "label": [
      [0.045698, -0.802952, 0.772516, -0.043682],
      [0.055035, -0.812246, 0.768793, -0.050746],
    ],
    "relation of patch 0 to 1": [
      *(-0.022816, 0.000163, -0.102547, 0.049907, -0.088944),
      *(0.000878, -0.148641, 0.074438, 0.081298),
    ],
    "norm": 2.0094192,
    "curve": [6.86575, 6.508243, 6.258934, 6.050067],
  },
  "T2T-ViT with transformers": {
    "model": T2T | {"tokens_type": "transformer"},
    "loss": {
      "relation": 2.2066422,
      "distance": 0.3680542,
      "angle": 0.4201415,
      "position": 1.8469208,
      "label": 1.2827979,
    },
    "label": [
      [0.613081, 0.680691, -0.329981, 0.366371],
      [0.640288, 0.661154, -0.299814, 0.405675],
    ],
    "relation of patch 0 to 1": [
      *(0.114233, -0.100249, 0.01515, -0.008181, -0.031346),
      *(0.030676, -0.001875, 0.083144, 0.027662),
    ],
    "norm": 1.2253395,
    "curve": [6.124557, 5.917744, 5.772641, 5.657751],
  },
}


def tiny_model(seed=0, **options):
  defaults = {"image_size": (12, 8), "patch_size": 4, "tasks": ALL}
  sizes = {"embed_dim": 12, "depth": 2, "num_heads": 3}
  return relvit_jax.create_model(
    num_classes=4, rngs=nnx.Rngs(seed), **(defaults | sizes | options)
  )


def tiny_weights(model):
  shapes = {k: v.shape for k, v in torch_official.state_dict(model).items()}
  return {
    name: np.random.default_rng([7, i])
    .normal(0, 0.3, shapes[name])
    .astype(np.float32)
    for i, name in enumerate(sorted(shapes))
  }


@pytest.mark.long
@pytest.mark.parametrize("case", TINY)
def test_a_tiny_model_does_as_pytorch(case):
  expected = TINY[case]
  model = tiny_model(**expected["model"])
  torch_official.load_state_dict(model, tiny_weights(model))
  shape = (2, *model.backbone.image_size, 3)
  images = np.random.default_rng(11).normal(size=shape)
  images = jnp.asarray(images, jnp.float32)
  labels = np.array([3, 1])
  outputs = jax.jit(lambda images: model(images))(images)
  np.testing.assert_allclose(outputs["label"], expected["label"], atol=1e-5)
  np.testing.assert_allclose(
    outputs["relation"][0, :, 0, 1],
    expected["relation of patch 0 to 1"],
    atol=1e-5,
  )
  losses = objectives.losses(outputs, {"label": labels}, model.grid_size)
  for task, value in expected["loss"].items():
    np.testing.assert_allclose(losses[task], value, atol=1e-5, err_msg=task)
  norm, curve = train(model, images, labels, 0.01, 4)
  np.testing.assert_allclose(norm, expected["norm"], rtol=1e-5)
  np.testing.assert_allclose(curve, expected["curve"], rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("name", ["vit_upstream", "vit_downstream"])
def test_the_official_vit(reference, name):
  downstream = name == "vit_downstream"
  model = relvit_jax.create_model(
    "vit",
    image_size=32,
    patch_size=4,
    tasks=ALL if downstream else ALL[:-1],
    num_classes=10 if downstream else None,
    pos_embed=downstream,
    rngs=nnx.Rngs(0),
    embed_dim=48,
    depth=3,
    num_heads=3,
  )
  check_official(reference(name), model)


def blank_swin(**sizes):
  """A Swin with zeros for weights, which takes no time to draw."""
  model = nnx.eval_shape(
    lambda: relvit_jax.create_model(
      "swin", num_classes=10, embed_dim=12, rngs=nnx.Rngs(0), **sizes
    )
  )
  zeros = jax.tree.map(
    lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), nnx.state(model)
  )
  nnx.update(model, zeros)
  return model


@pytest.mark.long
def test_the_official_swin(reference):
  model = blank_swin(
    image_size=224,
    patch_size=4,
    tasks=ALL,
    depth=(1, 1, 2, 1),
    num_heads=(1, 2, 2, 4),
    window_size=7,
  )
  check_official(reference("swin_downstream"), model)


@pytest.mark.long
def test_the_official_t2t_vit(reference):
  model = relvit_jax.create_model(
    "t2t_vit",
    image_size=224,
    tasks=ALL,
    num_classes=10,
    rngs=nnx.Rngs(0),
    embed_dim=48,
    depth=2,
    num_heads=3,
    token_dim=16,
  )
  check_official(reference("t2t_downstream"), model)


def check_official(archive, model):
  """Weights, outputs, losses, metrics, gradients and training steps."""
  official = {
    key.removeprefix("param/"): value
    for key, value in archive.items()
    if key.startswith("param/")
  }
  torch_official.load_state_dict(model, official)
  back = torch_official.state_dict(model)
  for key, value in back.items():
    np.testing.assert_array_equal(value, official[key], err_msg=key)

  images = jnp.asarray(archive["images_nchw"]).transpose(0, 2, 3, 1)
  outputs = nnx.jit(lambda model, images: model(images))(model, images)
  labels, grid_size = {"label": archive["labels"]}, model.grid_size
  losses = objectives.losses(outputs, labels, grid_size)
  for task in model.heads:
    expected = archive[f"out/{OFFICIAL_OUTPUTS[task]}"]
    if task in ("distance", "angle"):
      expected = expected[:, 0]
    elif task == "position":
      expected = expected.transpose(0, 2, 1)  # [B, classes, tokens] there.
    np.testing.assert_allclose(outputs[task], expected, atol=1e-5, err_msg=task)
    np.testing.assert_allclose(
      losses[task],
      archive[f"loss/loss_{OFFICIAL_OUTPUTS[task]}"],
      atol=1e-5,
      err_msg=task,
    )
  np.testing.assert_allclose(losses["total"], archive["loss/loss"], rtol=1e-5)

  measured = metrics.measure(outputs, labels, grid_size)
  for ours, theirs in (
    ("relation_accuracy", "loss/acc_rel"),
    ("position_accuracy", "loss/acc_abs_pos"),
  ):
    value, count = measured[ours]
    np.testing.assert_allclose(value / count, archive[theirs], rtol=1e-6)

  expected = archive["train_losses"]
  norm, curve = train(model, images, archive["labels"], 5e-4, len(expected))
  np.testing.assert_allclose(norm, archive["grad_unclipped_norm"], rtol=1e-5)
  np.testing.assert_allclose(curve, expected, rtol=1e-5)


@pytest.mark.parametrize(
  "options", [{}, T2T, T2T | {"tokens_type": "transformer"}]
)
def test_every_weight_leaves_and_comes_back(options):
  model, other = tiny_model(**options), tiny_model(seed=1, **options)
  weights = torch_official.state_dict(model)
  torch_official.load_state_dict(other, weights)
  for key, value in torch_official.state_dict(other).items():
    np.testing.assert_array_equal(value, weights[key], err_msg=key)


def test_official_names():
  names = set(torch_official.state_dict(tiny_model()))
  assert {
    "backbone.cls_token",
    "backbone.pos_embed",
    "backbone.patch_embed.proj.weight",
    "backbone.blocks.1.norm2.bias",
    "backbone.blocks.0.attn.qkv.weight",
    "backbone.norm.weight",
    "rel_head.heads.8.q_lin.weight",
    "dist_head.heads.0.k_lin.weight",
    "angle_head.heads.0.q_lin.weight",
    "abs_pos_head.bias",
    "clf_head.weight",
  } <= names
  assert len(names) == 56


def test_official_names_of_t2t_vit():
  names, others = (
    {
      name.removeprefix("backbone.tokens_to_token.")
      for name in torch_official.state_dict(tiny_model(**T2T, tokens_type=kind))
      if "tokens_to_token" in name
    }
    for kind in ("performer", "transformer")
  )
  layers = ("kqv", "proj", "norm1", "norm2", "mlp.0", "mlp.2")
  assert names == {"project.weight", "project.bias"} | {
    f"attention{i}.{name}"
    for i in (1, 2)
    for name in (
      "w",
      *(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")),
    )
  }
  assert {"attention1.attn.qkv.weight", "attention2.mlp.fc2.bias"} <= others
  assert not {"attention1.attn.qkv.bias", "attention1.w"} & others


def test_the_classifier_that_t2t_vit_does_not_use_is_ignored():
  unused = {"backbone.head.weight": np.zeros((9, 12), np.float32)}
  model = tiny_model(**T2T)
  torch_official.load_state_dict(model, tiny_weights(model) | unused)
  model = tiny_model()
  with pytest.raises(ValueError, match=r"left over: \['backbone.head.weight'"):
    torch_official.load_state_dict(model, tiny_weights(model) | unused)


def test_known_unused_names_are_ignored():
  model = tiny_model(pos_embed=False)
  weights = torch_official.state_dict(model)
  weights["rel_head.heads.3.v_lin.weight"] = np.zeros((1, 12), np.float32)
  weights["backbone.pos_embed"] = np.zeros((1, 7, 12), np.float32)
  torch_official.load_state_dict(model, weights)


# As above, for grids of 8×16, 4×8 and 2×4 tokens and windows of 4×4, 4×4 and
# 2×2, shifted in the first stage alone. Written as dense attention in which a
# loop over all pairs of tokens says which of them meet.
TINY_SWIN = {
  "loss": {"relation": 2.5159643, "label": 2.2318249},
  "four labels": [
    [-0.6219916, 0.9820459, -0.7102506, 0.4250577],
    [-0.6280667, 0.9784406, -0.7197768, 0.4305071],
  ],
  "relation of patch 0 to 1": [
    *(-0.0828698, -1.0454347, -1.1315029, 1.4236462, 0.1382352),
    *(-1.3859329, -1.1209648, -0.8598225, 0.5767816),
  ],
}


@pytest.mark.long
def test_a_tiny_swin_with_shrunken_windows_does_as_pytorch():
  model = blank_swin(
    image_size=(16, 32),
    patch_size=2,
    tasks=("relation", "label"),
    depth=(2, 1, 2),
    num_heads=(1, 2, 4),
    window_size=4,
  )
  torch_official.load_state_dict(model, tiny_weights(model))
  images = np.random.default_rng(11).normal(size=(2, 16, 32, 3))
  images = jnp.asarray(images, jnp.float32)
  outputs = nnx.jit(lambda model, images: model(images))(model, images)
  np.testing.assert_allclose(
    outputs["label"][:, :4], TINY_SWIN["four labels"], atol=1e-5
  )
  np.testing.assert_allclose(
    outputs["relation"][0, :, 0, 1],
    TINY_SWIN["relation of patch 0 to 1"],
    atol=1e-5,
  )
  labels = {"label": np.array([3, 1])}
  losses = objectives.losses(outputs, labels, (2, 4))
  for task, value in TINY_SWIN["loss"].items():
    np.testing.assert_allclose(losses[task], value, atol=1e-5, err_msg=task)


def tiny_swin(**options):
  """Grids of 4×8 and 2×4 tokens; windows of 2×2, shifted in the first."""
  sizes = {"depth": (2, 1), "num_heads": (1, 2), "window_size": 2}
  sizes |= {"tasks": ("relation", "label")}
  return blank_swin(image_size=(8, 16), patch_size=2, **(sizes | options))


def test_official_names_of_swin():
  names = set(torch_official.state_dict(tiny_swin()))
  assert {
    "backbone.patch_embed.norm.weight",
    "backbone.layers.0.blocks.0.attn.relative_position_bias_table",
    "backbone.layers.1.blocks.0.mlp.fc2.bias",
    "backbone.layers.0.downsample.norm.bias",
    "backbone.layers.0.downsample.reduction.weight",
    "backbone.norm.weight",
    "backbone.head.weight",
    "rel_head.heads.8.q_lin.weight",
  } <= names
  assert not names & {"clf_head.weight", "backbone.layers.1.downsample"}
  assert len(names) == 4 + 3 * 13 + 3 + 2 + 2 + 18


def test_official_names_of_localisation():
  """Its own repository's; in Swin's there, one head of a list of them."""
  ends = ("layers.0", "layers.2", "layers.4", "unshared.0", "unshared.1")
  names = {f"{end}.{kind}" for end in ends for kind in ("weight", "bias")}
  for model, prefix in (
    (tiny_model(tasks=("drloc",), drloc_mode="ce"), "drloc."),
    (tiny_swin(tasks=("drloc",), drloc_mode="ce"), "drloc.0."),
  ):
    weights = torch_official.state_dict(model)
    found = {name for name in weights if not name.startswith("backbone.")}
    assert found == {prefix + name for name in names}
    torch_official.load_state_dict(
      model, {name: value + 1 for name, value in weights.items()}
    )
    back = torch_official.state_dict(model)
    for name in found:
      np.testing.assert_array_equal(back[name], weights[name] + 1)


def test_the_fixed_tables_of_swin_are_ignored():
  model = tiny_swin()
  weights = torch_official.state_dict(model)
  block = "backbone.layers.0.blocks.1"
  weights[f"{block}.attn.relative_position_index"] = np.zeros((4, 4), int)
  weights[f"{block}.attn_mask"] = np.zeros((8, 4, 4), np.float32)
  weights["clf_head.bias"] = np.zeros(10, np.float32)
  torch_official.load_state_dict(model, weights)


def test_trained_biases_are_not_left_out_of_a_swin_without():
  weights = torch_official.state_dict(tiny_swin())
  with pytest.raises(ValueError, match=r"left over: .*blocks\.0\.attn\.rel"):
    torch_official.load_state_dict(tiny_swin(pos_embed=False), weights)


def test_missing_and_extra_names_are_listed_and_nothing_is_changed():
  model = tiny_model()
  before = torch_official.state_dict(model)
  weights = {name: value + 1 for name, value in before.items()}
  del weights["backbone.norm.bias"], weights["backbone.pos_embed"]
  weights["backbone.fc.weight"] = np.zeros(3)
  with pytest.raises(
    ValueError,
    match=r"missing: \['backbone.norm.bias', 'backbone.pos_embed'\]; "
    r"left over: \['backbone.fc.weight'\]",
  ):
    torch_official.load_state_dict(model, weights)
  for key, value in torch_official.state_dict(model).items():
    np.testing.assert_array_equal(value, before[key])


def test_a_wrong_shape_is_named_and_nothing_is_changed():
  model = tiny_model()
  before = torch_official.state_dict(model)
  weights = {name: value + 1 for name, value in before.items()}
  weights["clf_head.weight"] = np.zeros((5, 12), np.float32)
  with pytest.raises(
    ValueError, match=r"clf_head.weight has shape \(5, 12\).*\(4, 12\)"
  ):
    torch_official.load_state_dict(model, weights)
  for key, value in torch_official.state_dict(model).items():
    np.testing.assert_array_equal(value, before[key])


def test_a_head_of_localisation_has_the_names_of_its_own_code():
  head = heads.DenseRelativeLocalisation(
    4, (2, 2), "ce", hidden_dim=8, rngs=nnx.Rngs(0)
  )
  weights = torch_official.state_dict(head)
  assert sorted(weights) == [
    *("layers.0.bias", "layers.0.weight", "layers.2.bias"),
    *("layers.2.weight", "layers.4.bias", "layers.4.weight"),
    *("unshared.0.bias", "unshared.0.weight"),
    *("unshared.1.bias", "unshared.1.weight"),
  ]
  assert weights["layers.0.weight"].shape == (8, 2 * 4)
  changed = {name: value + 1 for name, value in weights.items()}
  torch_official.load_state_dict(head, changed)
  for key, value in torch_official.state_dict(head).items():
    np.testing.assert_array_equal(value, changed[key], err_msg=key)
  with pytest.raises(ValueError, match=r"left over: \['backbone.pos_embed'\]"):
    torch_official.load_state_dict(
      head, changed | {"backbone.pos_embed": np.zeros(1)}
    )
