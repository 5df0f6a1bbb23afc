"""The strong recipe as it differs from the paper's, for every stage."""

from relvit_jax import config

STRONG = {
  "batch_size": (128, 256),
  "augment.repeats": (3, 1),
  "augment.rand_augment": (2, 0),
  "augment.erasing": (0.25, 0.0),
  "optimizer.lr": (1e-3, 5e-4),
  "optimizer.end_lr": (1e-6, 1.25e-6),
  "optimizer.schedule": ("cosine", "paper"),
  "optimizer.warmup_lr": (1e-6, 0.0),
  "optimizer.weight_decay": (0.05, 0.1),
  "optimizer.decay_all": (False, True),
  "optimizer.clip_norm": (None, 1.0),
  "optimizer.ema_decay": (0.999, None),
}
WITH_LABELS = {
  "augment.mixup_alpha": (1.0, 0.0),
  "augment.cutmix_alpha": (1.0, 0.0),
  "augment.mix_probability": (0.5, 1.0),
  "loss.label_smoothing": (0.1, 0.0),
}


def changed(stage):
  return config.differences(
    config.load(f"cifar10:{stage},strong"), config.load(f"cifar10:{stage}")
  )


def test_it_is_the_same_for_all_stages_with_labels():
  for stage in ("supervised", "joint", "finetune", "linear"):
    assert changed(stage) == STRONG | WITH_LABELS


def test_without_labels_nothing_is_mixed():
  assert changed("pretrain") == STRONG


def test_the_vit_of_the_recipes_paper_has_its_name():
  settings = config.load("tiny_imagenet:joint,vit_lee,strong")
  assert settings.model.backbone == "vit_lee"
  assert settings.model.patch_size == 8
  assert settings.tasks == ("label", "relation", "position")
