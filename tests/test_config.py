"""Configs: found by name and by path, complete, and locked."""

import pathlib

import pytest

from relvit_jax import config
from relvit_jax.models import variants

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
NAMES = sorted(
  path.stem
  for path in CONFIGS.glob("*.py")
  if path.stem not in ("__init__", *config.SHARED)
)


def test_there_is_a_config_for_every_data_set():
  assert NAMES == [
    "cifar10",
    "cifar100",
    "digits",
    "flowers102",
    "folder",
    "imagenet100",
    "svhn",
    "tiny_imagenet",
  ]


@pytest.mark.parametrize(
  "stage", ["pretrain", "finetune", "joint", "supervised", "linear"]
)
def test_a_config_by_name_is_that_of_its_file(stage):
  by_name = config.load(f"digits:{stage}")
  by_path = config.load(f"{CONFIGS / 'digits.py'}:{stage}")
  assert by_name.to_dict() == by_path.to_dict()


def test_stages_differ_in_what_they_learn():
  tasks = {
    stage: set(config.load(f"digits:{stage}").tasks)
    for stage in ("pretrain", "finetune", "joint", "supervised")
  }
  assert tasks["pretrain"] == {"relation", "position"}
  assert tasks["finetune"] == tasks["supervised"] == {"label"}
  assert tasks["joint"] == tasks["pretrain"] | tasks["finetune"]


def test_pretraining_has_no_positional_embedding_to_read_the_answer_from():
  assert not config.load("digits:pretrain").model.pos_embed
  assert config.load("digits:finetune").model.pos_embed


def test_every_task_has_a_weight():
  assert set(config.load("digits").loss.weights) == set(variants.ALL_TASKS)


def test_a_mistyped_key_is_an_error():
  with pytest.raises(AttributeError, match="batchsize"):
    config.load("digits").batchsize = 3


@pytest.mark.parametrize("name", NAMES)
def test_fine_tuning_and_supervised_training_are_the_same_recipe(name):
  """So that their comparison shows nothing but the pre-training."""
  finetune, supervised = (
    config.load(f"{name}:{stage}") for stage in ("finetune", "supervised")
  )
  changed = config.differences(finetune, supervised)
  assert set(changed) == {"stage", "init_checkpoint"}


def test_arguments_choose_stage_backbone_and_fidelity():
  ours = config.load("cifar10:joint,vit_tiny")
  assert (ours.stage, ours.model.backbone) == ("joint", "vit_tiny")
  theirs = config.load("cifar10:joint,vit_tiny,faithful")
  assert set(config.differences(ours, theirs)) == {
    "data.splits.train",
    "data.splits.validation",
    "augment.mega_same_cuts",
    "augment.mega_antialias",
    "augment.mega_while_evaluating",
    "augment.jitter_after_normalise",
    "augment.permute_targets_only",
    "loss.relation_dropout_needs_smoothing",
  }
  assert theirs.data.splits.validation == "test"


def test_every_quirk_in_the_comments_is_turned_by_faithful():
  source = "".join(
    (CONFIGS / f"{name}.py").read_text() for name in ("common", "augment")
  )
  in_comments = source.count("# [quirk]")
  # paper_splits and the mega-patches' three have one comment each.
  assert in_comments == 5
  for name in NAMES:
    ours, theirs = (
      config.load(f"{name}:{arguments}")
      for arguments in ("pretrain", "pretrain,vit_small,faithful")
    )
    changed = set(config.differences(ours, theirs))
    assert "augment.jitter_after_normalise" in changed
    assert theirs.data.splits == theirs.data.paper_splits


@pytest.mark.parametrize(
  ("name", "patches"),
  [
    ("cifar10", 8),
    ("cifar100", 8),
    ("svhn", 8),
    ("tiny_imagenet", 8),
    ("flowers102", 7),
    ("imagenet100", 7),
  ],
)
def test_the_papers_hyper_parameters_are_the_defaults(name, patches):
  for stage in ("pretrain", "finetune", "joint", "supervised"):
    made = config.load(f"{name}:{stage}")
    assert made.num_epochs == 100
    assert made.batch_size == 256
    assert made.model.backbone == "vit_small"
    assert made.data.image_size == patches * made.model.patch_size
    assert made.optimizer.to_dict() == {
      "lr": 5e-4,
      "end_lr": 1.25e-6,
      "schedule": "paper",
      "warmup_share": 0.1,
      "warmup_lr": 0.0,
      "weight_decay": 0.1,
      "decay_all": True,
      "clip_norm": 1.0,
      "ema_decay": None,
    }
    pretrain = stage == "pretrain"
    assert made.augment.patch_jitter == (0.8 if pretrain else 0)
    assert made.augment.crop == ("resized" if patches == 7 else "pad")


def test_overrides_take_the_type_of_their_key():
  made = config.load(
    "cifar10:joint",
    [
      "num_steps=40",
      "optimizer.lr=1",
      "tasks=label,relation",
      "augment.crop_scale=0.2,1",
      "augment.permute_patches=True",
      "optimizer.clip_norm=None",
      "data.dir=/some/where",
      "loss.weights.relation=0.5",
      "model.depth=2,2",
      "model.num_heads=[3,6]",
    ],
  )
  assert made.num_steps == 40
  assert made.num_epochs is None  # Steps stand for epochs.
  assert made.optimizer.lr == 1.0
  assert made.tasks == ("label", "relation")
  assert made.augment.crop_scale == (0.2, 1)
  assert made.augment.permute_patches is True
  assert made.optimizer.clip_norm is None
  assert made.data.dir == "/some/where"
  assert made.loss.weights.relation == 0.5
  assert made.model.depth == (2, 2)
  assert made.model.num_heads == (3, 6)


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("batchsize=3", r"batchsize is no key .* did you mean: batch_size"),
    ("depth=3", r"depth is no key of a config; did you mean: model.depth"),
    ("model=3", "model is a group of keys: model.attention, "),
    ("batch_size=1.5", "batch_size=1.5 must be a whole number"),
    ("batch_size=many", "batch_size=many must be a whole number"),
    ("batch_size=True", "batch_size=True must be a whole number"),
    ("optimizer.lr=fast", "optimizer.lr=fast must be a number"),
    ("augment.permute_patches=1", "must be True or False"),
    ("batch_size", "'batch_size' must be KEY=VALUE"),
  ],
)
def test_overrides_that_cannot_be_are_refused(override, message):
  with pytest.raises(ValueError, match=message):
    config.load("cifar10", [override])


@pytest.mark.parametrize("name", NAMES)
def test_a_config_survives_a_file(name):
  made = config.load(f"{name}:joint", ["num_steps=3", "tasks=label,angle"])
  again = config.from_json(config.to_json(made))
  assert again.to_dict() == made.to_dict()
  assert isinstance(again.tasks, tuple)
  assert config.differences(made, again) == {}


def test_differences_have_both_values():
  ours = config.load("cifar10")
  theirs = config.load("cifar10", ["model.depth=3"])
  assert config.differences(ours, theirs) == {"model.depth": (None, 3)}


@pytest.mark.parametrize(
  ("spec", "message"),
  [
    ("digit", "config='digit' does not exist; there are cifar10, .*svhn"),
    ("digits:train", "stage 'train' does not exist; there are pretrain"),
    ("digits:joint,vit,swin", "'swin' is one too many"),
    ("configs/none.py", "config='configs/none.py': there is no such file"),
    ("common", "config='common' does not exist"),
  ],
)
def test_what_is_no_config_is_refused(spec, message):
  with pytest.raises(ValueError, match=message):
    config.load(spec)


def test_a_file_must_return_a_config(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text("def get_config():\n  return {'lr': 1}\n")
  with pytest.raises(ValueError, match="returned dict, not a ConfigDict"):
    config.load(str(path))
