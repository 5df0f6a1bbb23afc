"""What is asked of PyTorch's step; the step itself is an optional extra."""

import pytest

from relvit_jax import cli, config
from relvit_jax.analysis import rival

SPECIFICATION = {
  "model": {
    "image_size": 32,
    "patch_size": 4,
    "tasks": ["relation", "position"],
    "num_classes": 10,
    "pos_embed": False,
    "embed_dim": 384,
    "depth": 6,
    "num_heads": 6,
  },
  "batch": 32,
  "lr": 0.0005,
  "weight_decay": 0.1,
  "clip_norm": 1.0,
  "bfloat16": False,
  "device": "cpu",
  "threads": 2,
}


def test_the_config_as_pytorch_is_told():
  settings = config.load("cifar10:pretrain", ["batch_size=32", "model.depth=6"])
  assert rival.specification(settings, 32, 10, False, "cpu", 2) == SPECIFICATION
  on_gpu = rival.specification(settings, 32, 10, True, "gpu", 2)
  assert on_gpu == SPECIFICATION | {"bfloat16": True, "device": "cuda"}
  assert rival.problems(settings) == []


@pytest.mark.parametrize(
  ("devices", "platform", "is_like"),
  [
    (1, "cpu", True),
    (8, "cpu", True),
    (1, "gpu", True),
    (8, "gpu", False),
    (1, "tpu", False),
  ],
)
def test_only_like_devices_are_compared(devices, platform, is_like):
  assert (rival.unlike(devices, platform) is None) == is_like


@pytest.mark.parametrize(
  ("spec", "overrides", "message"),
  [
    ("cifar10:joint,swin_tiny", [], "model.backbone='swin_tiny' must be a ViT"),
    (
      "cifar10:joint,drloc",
      [],
      "tasks=('label', 'relation', 'position', 'drloc') must be without drloc",
    ),
    (
      "cifar10:joint",
      ["model.cls_token=False"],
      "model.cls_token=False must be True",
    ),
    (
      "cifar10:joint",
      ["model.attention_mask=diagonal"],
      "model.attention_mask='diagonal' must be None",
    ),
    (
      "cifar10:joint",
      ["model.cls_to_patches=True"],
      "model.cls_to_patches=True must be False",
    ),
    ("cifar10:linear", [], "freeze_backbone=True must be False"),
  ],
)
def test_what_hugging_face_s_vit_cannot_be(spec, overrides, message):
  (problem,) = rival.problems(config.load(spec, overrides))
  assert problem.startswith(message)


def test_a_process_that_ends_says_why():
  """With or without the extra: nothing is called nonsense."""
  with rival.Rival("pytorch", {"nonsense": 1}) as one:
    assert (one.least, one.planned_bytes) == (1, None)
    with pytest.raises(OSError, match=r"pytorch: .*(torch|nonsense)"):
      one.clock(1)()


def test_without_the_extra_the_command_says_how_to_get_it(capsys, monkeypatch):
  monkeypatch.setattr(rival, "missing", lambda: ["transformers"])
  words = ["benchmark", "--config=cifar10:pretrain", "--rivals"]
  assert cli.main(words) == 2
  assert capsys.readouterr().err == (
    "relvit benchmark: --rivals needs transformers: pip install "
    "'relvit_jax[benchmark]'\n"
  )


def test_what_cannot_be_compared_is_refused(capsys, monkeypatch):
  monkeypatch.setattr(rival, "missing", lambda: [])
  words = ["benchmark", "--config=cifar10:joint,swin_tiny", "--rivals"]
  assert cli.main(words) == 2
  assert "model.backbone='swin_tiny' must be a ViT" in capsys.readouterr().err
