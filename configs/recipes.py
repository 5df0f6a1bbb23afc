"""What a backbone, an image size and a way of training change in a config."""

from typing import Any

from relvit_jax.configs.arguments import (  # pyright: ignore[reportMissingImports]
  Arguments,
)

from relvit_jax.models import variants

# Pixels a side of a ViT's patch. [paper]; other sizes take a seventh of the
# side or so, as most of these do.
PATCH_SIZES = {14: 2, 28: 4, 32: 4, 36: 4, 56: 8, 64: 8, 112: 16, 224: 32}


def fit(config: Any, arguments: Arguments) -> None:
  """Sets what follows from the backbone and the image size, in place.

  Swin and T2T-ViT see 224 pixels, in batches of 64. [paper]
  """
  family = variants.family_of(config.model.backbone)
  if family != "vit":
    config.batch_size = 64
    resize(config, arguments.image_size or 224)
    config.model.patch_size = 4 if family == "swin" else None
  elif arguments.image_size:
    resize(config, arguments.image_size)
    config.model.patch_size = PATCH_SIZES.get(
      arguments.image_size, max(1, arguments.image_size // 7)
    )
  if family == "swin":
    config.loss.weights.drloc = 0.5
  if family == "t2t_vit":
    # The official code passes it none. [paper]
    config.model.drop_path_rate = 0.0


def resize(config: Any, image_size: int) -> None:
  """Shows images at another size: a random part of each, resized. [paper]

  Images of many sizes are kept a quarter larger, so that a crop has something
  to choose from.
  """
  if image_size == config.data.image_size:
    return
  config.data.image_size = image_size
  config.augment.crop = "resized"
  if config.data.stored_size is not None:
    config.data.stored_size = image_size * 5 // 4


def strong(config: Any) -> None:
  """A recipe on which plain ViTs get good without any other task; in place.

  Lee et al., "Vision Transformer for Small-Size Datasets" (2021), for 32 and
  64 pixels: their released code, as far as it can be read, and what is marked.
  Its ViT of 2.8 M parameters is the backbone vit_lee; ViT-S takes the same.
  Its "100 epochs" walk through the data three times each, in 128s, without a
  repetition in a batch: for its number of steps take num_epochs=300 and
  augment.repeats=1. Its drop-path is 0.1 in every block; ours grows to it.
  """
  config.batch_size = 128
  config.augment.update(
    # Its paper's repeated augmentation.
    repeats=3,
    # It has AutoAugment's policies; RandAugment does without a policy for
    # each data set. timm's rand-m9-mstd0.5. [choice]
    rand_augment=2,
    rand_magnitude=9.0,
    rand_deviation=0.5,
    erasing=0.25,
  )
  if "label" in config.tasks:  # Else there is nothing to share.
    config.augment.update(
      mixup_alpha=1.0,
      cutmix_alpha=1.0,
      mix_probability=0.5,
      cutmix_share=0.5,
    )
    config.loss.label_smoothing = 0.1
  config.model.drop_path_rate = 0.1
  config.optimizer.update(
    lr=1e-3,
    end_lr=1e-6,
    schedule="cosine",
    warmup_share=0.1,
    warmup_lr=1e-6,
    weight_decay=0.05,
    # It decays all. [choice]: as timm's recipes.
    decay_all=False,
    clip_norm=None,
    # It has no average. A thousand steps are two to three epochs of CIFAR.
    # [choice]
    ema_decay=0.999,
  )


def faithful(config: Any) -> Any:
  """Turns every [quirk] to what the official code does; in place."""
  pretrain = config.stage == "pretrain"
  config.data.splits.update(config.data.paper_splits)
  config.augment.update(
    mega_same_cuts=True,
    mega_antialias=False,
    mega_while_evaluating=True,
    jitter_after_normalise=True,
    permute_targets_only=not pretrain,
  )
  if not pretrain:  # Its flag for patch transforms is read there only.
    config.augment.update(patch_crop=1.0, patch_jitter=0.0, patch_grey=0.0)
  config.loss.relation_dropout_needs_smoothing = True
  config.model.cls_token = True
  if not config.model.backbone.startswith("vit"):
    # Its flag for positional embeddings reaches the ViT alone.
    config.model.pos_embed = True
  return config
