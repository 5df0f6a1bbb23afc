"""A model in numbers, and that the formula is what XLA compiles."""

import jax.numpy as jnp
import pytest
from flax import nnx

import relvit_jax
from relvit_jax.analysis import model_table
from relvit_jax.models import variants

ALL = variants.ALL_TASKS

# One of every kind: (backbone, image size, patch size, sizes).
SMALL = {
  "vit": ("vit", 16, 4, {"embed_dim": 24, "depth": 1, "num_heads": 2}),
  "vit_no_cls": (
    "vit",
    16,
    4,
    {"embed_dim": 24, "depth": 1, "num_heads": 2, "cls_token": False},
  ),
  # Grids of 8×8, 4×4 and 2×2, the last with windows as small.
  "swin": (
    "swin",
    32,
    4,
    {
      "embed_dim": 24,
      "depth": (1, 1, 1),
      "num_heads": (1, 2, 2),
      "window_size": 4,
    },
  ),
  "performer": (
    "t2t_vit",
    32,
    None,
    {"embed_dim": 24, "depth": 1, "num_heads": 2, "token_dim": 16},
  ),
  "transformer": (
    "t2t_vit_t_14",
    32,
    None,
    {"embed_dim": 24, "depth": 1, "num_heads": 2, "token_dim": 16},
  ),
}


def describe(kind, tasks=ALL, **options):
  backbone, image_size, patch_size, sizes = SMALL[kind]
  return model_table.describe(
    backbone,
    image_size,
    patch_size,
    tasks,
    10 if "label" in tasks else None,
    **(sizes | {"dtypes": ()} | options),
  )


@pytest.mark.long
@pytest.mark.parametrize("kind", SMALL)
def test_compiled_products_are_those_of_the_formula(kind):
  """So close that a gradient too many is seen, of the images of Swin say.

  Left are Swin's position biases, once a batch, and a row of a performer,
  whose product with one vector XLA turns into a sum.
  """
  row = describe(kind, compiles=True)
  assert row.compiled_flops == pytest.approx(row.training_flops, rel=0.002)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", variants.SIZES)
def test_compiled_products_of_the_real_models(backbone):
  for image_size, patch_size in model_table.combinations(backbone):
    row = model_table.describe(
      backbone, image_size, patch_size, ALL, 100, dtypes=(), compiles=True
    )
    assert row.compiled_flops == pytest.approx(row.training_flops, rel=0.002)


# In millions with 1,000 classes: timm's, Swin's README; T2T-ViT's 21.5 less
# 0.08 of sinusoids and random features, which are not trained.
@pytest.mark.parametrize(
  ("backbone", "patch_size", "millions"),
  [("vit_small", 16, 22.05), ("swin_tiny", 4, 28.29), ("t2t_vit", None, 21.47)],
)
def test_parameters(backbone, patch_size, millions):
  row = model_table.describe(
    backbone, 224, patch_size, ("label",), 1000, dtypes=()
  )
  assert round(row.parameters / 1e6, 2) == millions
  assert row.activation_bytes == {}
  assert row.compiled_flops is None


def test_parameters_of_heads():
  relation, distance, angle = 2 * 24 * 18, 2 * 24 * 24, 2 * 24 * 24
  position, label = 24 * 16 + 16, 24 * 10 + 10
  drloc = (2 * 24 * 512 + 512) + (512 * 512 + 512) + (512 * 2 + 2)
  row = describe("vit")
  assert row.head_parameters == (
    relation + distance + angle + position + label + drloc
  )
  assert (row.tokens, row.grid_size) == (17, (4, 4))


def saved(kind, dtype="float32", **options):
  return describe(kind, dtypes=(dtype,), **options).activation_bytes[dtype]


@pytest.mark.parametrize("kind", SMALL)
def test_half_the_bits_are_less_bytes(kind):
  whole, half = saved(kind), saved(kind, "bfloat16")
  assert whole / 2 < half < whole


def test_every_block_keeps_as_much():
  one, two, three = (saved("vit", depth=depth) for depth in (1, 2, 3))
  assert three - two == two - one > 0


def test_bytes_are_those_of_a_model_made_in_that_type():
  backbone, image_size, patch_size, sizes = SMALL["vit"]
  model = nnx.eval_shape(
    lambda: relvit_jax.create_model(
      backbone,
      image_size=image_size,
      patch_size=patch_size,
      tasks=("position",),
      dtype=jnp.bfloat16,
      rngs=nnx.Rngs(0),
      **sizes,
    )
  )
  # It is told the type it has, and then the other one.
  for dtype in ("bfloat16", "float32"):
    assert model_table.activation_bytes(model, image_size, dtype) == saved(
      "vit", dtype, tasks=("position",)
    )


@pytest.mark.parametrize(
  ("backbone", "images", "patches", "expected"),
  [
    ("swin", None, None, [(224, 4)]),
    ("t2t_vit_7", None, None, [(224, None)]),
    ("vit_tiny", [32, 64], None, [(32, 4), (64, 8)]),
    ("vit", None, [4], [(28, 4), (32, 4), (36, 4)]),
    ("vit", [224], [16, 32], [(224, 16), (224, 32)]),
    # Their only patch, and their only image.
    ("swin", [448], None, [(448, 4)]),
    ("t2t_vit", [64], None, [(64, None)]),
    ("swin", None, [2], [(224, 2)]),
    # For create_model to say what is missing.
    ("vit", [48], None, [(48, None)]),
  ],
)
def test_sizes_to_make_a_backbone_with(backbone, images, patches, expected):
  found = model_table.combinations(backbone, images, patches)
  assert list(found) == expected
