"""What a config may not say: named with its value and what would be right."""

import json
import pathlib
import re
import subprocess
import sys
import time

import pytest

from relvit_jax import config, config_checks

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"

# (config, overrides, what the message must say).
WRONG = [
  ("cifar10", "augment.flip=1.5", "augment.flip=1.5 must be between 0 and 1"),
  ("cifar10", "batch_size=0", "batch_size=0 must be at least 1"),
  ("cifar10", "batch_szie=64", "batch_szie is no key .* batch_size"),
  ("cifar10", "batch_size=64.5", "batch_size=64.5 must be a whole number"),
  ("cifar10", "model.depht=6", "model.depht is no key .* model.depth"),
  ("cifar10", "model.patch_size=5", "patch_size=5 must divide .*=32; 2 and 4"),
  ("cifar10", "model.num_heads=5", "num_heads=5 must divide .*=384; 4 and 6"),
  ("cifar10", "model.backbone=vgg", "backbone='vgg' .* vit_small, vit_base"),
  ("cifar10", "model.drop_path_rate=1", "=1.0 must be 0 or more and below 1"),
  ("cifar10", "model.pos_embed=yes", "pos_embed=yes must be True or False"),
  ("cifar10", "num_steps=9 num_epochs=2", "exactly one must be given"),
  ("cifar10", "num_epochs=0", "num_epochs=0.0 must be more than 0"),
  ("cifar10", "tasks=label,label", "each once"),
  ("cifar10", "tasks=label,jigsaw", "at least one of relation, distance"),
  ("cifar10", "loss.weights.label=0", "nothing would be learned"),
  ("cifar10", "loss.label_smoothing=-0.1", "0 or more and below 1"),
  ("cifar10", "optimizer.lr=-1e-3", "optimizer.lr=-0.001 must be more than 0"),
  ("cifar10", "optimizer.clip_norm=0", "clip_norm=0.0 must be more than 0"),
  ("cifar10", "data.name=cifar", "data.name='cifar' must be one of cifar10"),
  ("cifar10", "data.image_size=64", "'pad' keeps the 32 pixels of"),
  ("cifar10", "data.stored_size=40", "stored_size=40 must be None: .* 32×32"),
  ("cifar10", "data.mean=None", "data.mean=None and data.std=.* both must"),
  ("cifar10", "data.std=0.2,0.2", "data.std=.* must be 3 numbers above 0"),
  ("cifar10", "data.folder=.", "data.folder='.' is for data.name=folder"),
  ("cifar10", "data.feed=slow", "must be one of auto, resident, streaming"),
  ("cifar10", "data.num_workers=-1", "num_workers=-1 must be 0 or more"),
  ("flowers102", "data.crop_at_decode=True", "needs data.feed='streaming'"),
  (
    "flowers102",
    "data.crop_at_decode=True data.feed=streaming augment.crop=none",
    "crop_at_decode=True needs augment.crop='resized', not 'none'",
  ),
  (
    "tiny_imagenet",
    "data.crop_at_decode=True data.feed=streaming augment.crop=resized",
    "needs images of many sizes: those of tiny_imagenet have 64×64 pixels",
  ),
  ("cifar10", "augment.crop=random", "must be one of pad, resized, none"),
  ("cifar10", "augment.crop_scale=0.9,0.1", "ascending"),
  ("cifar10", "augment.crop_padding=32", "crop_padding=32 must be below"),
  ("cifar10", "augment.mega_patches=9", "0 or from 2 to the 8 patches of 4×4"),
  ("cifar10", "augment.jitter_strength=1,1,1,1", "hue.* at most 0.5"),
  ("cifar10", "mesh.fsdp=7", "mesh.fsdp=7 must divide .*=384; 6 and 8"),
  ("cifar10:finetune", "", "init_from=None: finetune starts from trained"),
  ("cifar10:linear", "init_from=gone", "init_from='gone' does not exist"),
  ("cifar10", "freeze_backbone=True", "would freeze random weights"),
  ("cifar10", "logs.wandb=mine", "pip install wandb, or logs.wandb=None"),
  ("cifar10", "init_checkpoint=first", "must be one of last, best"),
  ("flowers102", "data.stored_size=None", "oxford_flowers102 have many sizes"),
  ("imagenet100", "", "data.classes=None: data.name=imagenet100 needs it"),
  ("folder", "", "data.folder=None: data.name=folder needs it, a path"),
  ("folder", "data.folder=gone", "data.folder='gone' does not exist"),
  ("cifar10:pretrain", "model.patch_size=32", "=32 is one patch, of 32×32: "),
  ("cifar10:joint,swin", "model.patch_size=8", "=224 must be .* of 64: .* 8 "),
  ("cifar10:joint,swin", "model.depth=2", "depth=2 must have a number for"),
  ("cifar10:joint,swin", "model.depth=2,2", r"\(2, 2\) and .*num_heads=\(3, "),
  ("cifar10:joint,swin", "model.depth=2,x", "a whole number, or one for each"),
  ("cifar10:joint,swin", "model.depth=2,0,6,2", "must be at least 1"),
  ("cifar10:joint,swin", "model.embed_dim=97", "=3 of .* must divide .*=97; 1"),
  ("cifar10:joint,swin", "model.num_heads=3,6,12,25", "of stage 4 .*=768; 24"),
  ("cifar10:joint,swin,32", "", "data.image_size=32 is one patch, of 32×32"),
  ("cifar10:joint,swin", "model.window_size=57", "number from 1 to .*56×56 to"),
  ("cifar10:joint,swin", "model.window_size=5", "5×5 windows .* 1, 7, 14, 28"),
  ("cifar10:joint,swin", "model.depth=()", r"depth=\(\) must be at least 1"),
  ("cifar10:joint,t2t_vit,32", "", "=32 is one patch, of 32×32: .* with t2t"),
  ("cifar10:joint,t2t_vit", "model.token_dim=1", "=1 must be at least 2"),
  ("cifar10", "model.mlp_ratio=1e-3", "=0.001 times model.embed_dim=384 must"),
  (
    "cifar10:joint",
    "model.embed_dim=6",
    "=6 must be at least 9 for the task r",
  ),
  ("digits:joint", "augment.patch_crop=4", "leaves nothing of patches of 2×2"),
  ("cifar10:supervised,drloc", "mesh.fsdp=3", "drloc's layers=512; 2 and 4"),
  ("cifar10:supervised,0", "", "backbone='0' does not exist"),
  ("cifar10:joint,swin", "model.patch_size=None", "swin needs it, in pixels"),
  ("cifar10:joint,swin", "model.token_dim=9", "must be None: swin has none"),
  ("cifar10", "model.window_size=7", "must be None: vit_small has none"),
  ("cifar10", "model.depth=2,2", r"=\(2, 2\) must be one number: vit_small"),
  ("cifar10:joint,t2t_vit", "model.patch_size=4", "must be None: t2t_vit cuts"),
  ("cifar10:joint,t2t_vit", "data.image_size=48", "multiple of 32: t2t_vit"),
  ("cifar10:joint,t2t_vit", "model.tokens_type=x", "of performer, transformer"),
  ("cifar10:joint,swin", "model.cls_to_patches=True", "swin has no class tok"),
  ("cifar10", "model.cls_token=False model.cls_to_patches=True", "=False"),
  ("cifar10", "model.attention_mask=none", "one of diagonal, diagonal_cls_row"),
  ("cifar10:pretrain", "model.pos_embed_type=sinusoidal", "needs model.pos_em"),
  (
    "cifar10",
    "model.cls_token=False model.attention_mask=diagonal_cls_row",
    "needs model.cls_token=True",
  ),
  ("cifar10:joint,swin", "model.attention_mask=diagonal", "be None: swin has"),
  ("cifar10:train", "", "'train' does not exist; there are pretrain"),
  ("cifar10:joint,stong", "", "'stong' does not exist; .*,drloc,strong,"),
  ("cifar10:joint,vit,swin", "", "'swin' is one too many"),
  ("cifar10:joint,strong,faithful", "", "exclude one another"),
  ("cifar10:joint,strong", "batch_size=127", "batch_size=127 must be even"),
  ("cifar10", "augment.repeats=129", "at most half of batch_size=256"),
  ("cifar10", "augment.rand_magnitude=11", "between 0 and 10"),
  ("cifar10", "optimizer.warmup_share=0.2", "needs optimizer.schedule='cos"),
  ("cifar10", "optimizer.warmup_lr=1e-6", "needs optimizer.schedule='cos"),
  ("cifar10", "optimizer.ema_decay=1", "0 or more and below 1"),
  ("cifar10", "loss.drloc.mode=l2", "must be one of l1, ce, cbr"),
  (
    "cifar10:joint,drloc",
    "loss.drloc.mode=ce loss.drloc.normalise_targets=True",
    "normalise_targets=True needs loss.drloc.mode='l1'",
  ),
]

PROGRAM = """
import json, sys, time
from relvit_jax import config, config_checks
answers = []
for spec, overrides, _ in json.load(sys.stdin):
  began, said = time.perf_counter(), None
  try:
    config_checks.check(config.load(spec, overrides.split()))
  except ValueError as error:
    said = str(error)
  answers.append((said, time.perf_counter() - began))
heavy = [name for name in ("jax", "flax", "numpy") if name in sys.modules]
print(json.dumps((answers, heavy)))
"""


@pytest.fixture(scope="module")
def answers():
  """What a process that checks all of them says, and what it imported."""
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM],
    input=json.dumps(WRONG),
    capture_output=True,
    text=True,
    check=True,
  )
  return json.loads(done.stdout)


@pytest.mark.parametrize("index", range(len(WRONG)), ids=lambda i: WRONG[i][1])
def test_a_wrong_config_is_refused_by_key_and_value(answers, index):
  said, seconds = answers[0][index]
  assert said is not None
  assert re.search(WRONG[index][2], said), said
  assert seconds < 1


def test_no_device_is_started_for_it(answers):
  assert "jax" not in answers[1]


def test_the_command_refuses_within_two_seconds():
  began = time.perf_counter()
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      "relvit_jax.cli",
      "train",
      "--config=cifar10:joint",
      "--workdir=runs/never",
      "--config.model.patch_size=5",
      "--config.optimizer.lr=-1",
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  assert time.perf_counter() - began < 2
  assert done.returncode == 2
  assert done.stderr.startswith("relvit train: optimizer.lr=-1.0 must be")
  assert not pathlib.Path("runs/never").exists()


@pytest.mark.parametrize(
  "stage", ["pretrain", "finetune", "joint", "supervised", "linear"]
)
@pytest.mark.parametrize(
  "name",
  [
    path.stem
    for path in sorted(CONFIGS.glob("*.py"))
    if path.stem not in ("__init__", *config.SHARED)
  ],
)
def test_every_config_that_we_ship_is_right(name, stage, tmp_path):
  needs = {"folder": ["data.folder"], "imagenet100": ["data.classes"]}
  keys = needs.get(name, [])
  if stage in ("finetune", "linear"):
    keys = [*keys, "init_from"]
  overrides = [f"{key}={tmp_path}" for key in keys]
  config_checks.check(config.load(f"{name}:{stage}", overrides))
  for words in (
    "vit,faithful",
    "vit_small,strong",
    "swin_tiny",
    "swin_tiny,drloc,faithful",
    "t2t_vit_14,strong",
    "vit_small,224",
    "vit_small,64,drloc",
  ):
    config_checks.check(config.load(f"{name}:{stage},{words}", overrides))


def test_all_wrong_keys_are_named_at_once():
  wrong = config.load("cifar10", ["batch_size=0", "optimizer.lr=0"])
  with pytest.raises(config_checks.ConfigError) as error:
    config_checks.check(wrong)
  assert len(str(error.value).splitlines()) == 2


def test_a_file_may_not_add_or_lack_a_key(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(
    "from relvit_jax.configs import cifar10\n"
    "def get_config(argument='joint'):\n"
    "  config = cifar10.get_config(argument)\n"
    "  with config.unlocked():\n"
    "    config.data.nmae = 'x'\n"
    "    del config.optimizer.lr\n"
    "  return config\n"
  )
  with pytest.raises(
    ValueError,
    match=r"(?s)data.nmae is no key .* data.name.*optimizer.lr is missing",
  ):
    config_checks.check(config.load(str(path)))


@pytest.mark.parametrize(
  "spec", ["imagenet100:pretrain", "cifar10:finetune", "cifar10:linear"]
)
def test_a_plan_needs_no_files_of_the_run(spec):
  settings = config.load(spec)
  config_checks.check(settings, here=False)
  with pytest.raises(config_checks.ConfigError):
    config_checks.check(settings)
