"""What follows from the kind of device."""

import types

import jax.numpy as jnp
import pytest

from relvit_jax import config
from relvit_jax.models import row_tiles
from relvit_jax.training import hardware


def settings(spec="cifar10:pretrain", *overrides):
  return config.load(spec, overrides)


@pytest.mark.parametrize(
  ("platform", "dtype", "attention", "recompute_gelu", "block_kernels"),
  [
    ("cpu", jnp.float32, "products", False, False),
    ("gpu", jnp.bfloat16, "triton", False, True),
    ("amd gpu", jnp.bfloat16, "einsum", False, False),
    ("early gpu", jnp.float32, "einsum", False, False),
    ("tpu", jnp.bfloat16, "kernel", True, False),
  ],
)
def test_each_kind_of_device_has_its_way(
  platform, dtype, attention, recompute_gelu, block_kernels
):
  assert hardware.choices(settings(), 32, platform) == {
    "dtype": dtype,
    "attention": attention,
    "recompute_gelu": recompute_gelu,
    "block_kernels": block_kernels,
  }


def test_what_the_config_says_holds_on_any_device():
  asked = settings(
    "cifar10:pretrain",
    "model.dtype=float32",
    "model.attention=xla",
    "model.recompute_gelu=False",
    "model.block_kernels=True",
  )
  assert hardware.choices(asked, 32, "tpu") == {
    "dtype": jnp.float32,
    "attention": "xla",
    "recompute_gelu": False,
    "block_kernels": True,
  }


def test_kernels_of_blocks_are_taken_for_bfloat16_where_there_are_some(
  monkeypatch,
):
  wide = settings("cifar10:pretrain", "model.dtype=float32")
  assert not hardware.choices(wide, 32, "gpu")["block_kernels"]
  monkeypatch.setattr(row_tiles, "plgpu", None)
  assert not hardware.choices(settings(), 32, "gpu")["block_kernels"]
  asked = settings("cifar10:pretrain", "model.block_kernels=True")
  with pytest.raises(ValueError, match="block_kernels=True must be False: JAX"):
    hardware.choices(asked, 32, "gpu")


def test_swin_has_one_kind_of_attention():
  made = hardware.choices(settings("cifar10:pretrain,swin_tiny"), 224, "tpu")
  assert "attention" not in made


@pytest.mark.parametrize(
  ("kind", "overrides", "size"),
  [
    *(
      (kind, overrides, size)
      for kind in ("cpu", "tpu", "gpu")
      for overrides, size in (
        (["model.attention_dropout_rate=0.1"], 32),
        (["model.attention_mask=diagonal"], 32),
      )
    ),
    ("tpu", [], 128),  # 1,025 tokens.
    ("gpu", [], 128),
    ("tpu", ["model.embed_dim=768", "model.num_heads=12"], 32),
    ("gpu", ["model.num_heads=4"], 32),
    ("gpu", ["model.dtype=float32"], 32),
  ],
)
def test_where_its_kernel_does_not_fit_a_device_takes_products(
  kind, overrides, size
):
  asked = settings("cifar10:pretrain", *overrides)
  assert hardware.choices(asked, size, kind)["attention"] == "einsum"


@pytest.mark.parametrize(
  ("attention", "size", "message"),
  [
    ("kernel", 128, "'kernel' must be 'einsum': 1025 tokens are more than 256"),
    ("triton", 128, "'triton' must be 'einsum': it takes bfloat16 alone"),
    ("cudnn", 32, "'cudnn' needs bfloat16 and a GPU .* float32 on cpu; None"),
  ],
)
def test_what_the_device_has_not_is_refused(attention, size, message):
  asked = settings("cifar10:pretrain", f"model.attention={attention}")
  with pytest.raises(ValueError, match=f"model.attention={message}"):
    hardware.choices(asked, size, "cpu")


def test_cudnn_computes_in_bfloat16_alone():
  asked = settings("cifar10:pretrain", "model.attention=cudnn")
  assert hardware.choices(asked, 32, "gpu")["attention"] == "cudnn"
  asked.model.dtype = "float32"
  with pytest.raises(ValueError, match="this is float32 on gpu; None"):
    hardware.choices(asked, 32, "gpu")


@pytest.mark.parametrize(
  ("about", "kind"),
  [
    ({"platform": "cpu"}, "cpu"),
    ({"platform": "tpu"}, "tpu"),
    ({"platform": "gpu", "compute_capability": "9.0"}, "gpu"),
    ({"platform": "gpu", "compute_capability": "12.0"}, "gpu"),
    ({"platform": "gpu", "compute_capability": "7.5"}, "early gpu"),
    ({"platform": "gpu", "compute_capability": "gfx90a"}, "amd gpu"),
    ({"platform": "gpu"}, "amd gpu"),
  ],
)
def test_kinds_of_devices(about, kind):
  assert hardware.kind_of(types.SimpleNamespace(**about)) == kind


def steps(platform, devices=1, *overrides):
  asked = settings("cifar10:pretrain", *overrides)
  return hardware.steps_per_dispatch(asked, 32, 10, platform, devices)


def test_a_dispatch_takes_as_many_steps_as_fit_into_its_time():
  # ViT-S/4 with relation and position: 8.65 GFLOPs an image, 256 a batch, are
  # 18 s at 120 GFLOP/s and 28 ms at 80 TFLOP/s.
  assert steps("cpu") == steps("cpu", 8) == 1
  assert steps("gpu") == 54
  assert steps("early gpu") == 2
  assert steps("tpu", 2) == 108
  small = ["model.embed_dim=96", "model.depth=6", "model.num_heads=3"]
  assert steps("cpu", 1, "batch_size=64", *small) == 9
  assert steps("gpu", 1, "batch_size=64", *small) == 200  # The most.


def test_a_config_may_say_how_many():
  assert steps("gpu", 1, "steps_per_dispatch=7") == 7
