"""What a backbone, an image size and a way of training change in a config."""

from typing import Any

from relvit_jax.configs.arguments import (  # pyright: ignore[reportMissingImports]
  Arguments,
)

from relvit_jax.models import stages, variants

# The official code's mean and standard deviation of resized images, by data
# set and pixels a side. [paper]
COLOURS = {
  ("cifar10", 14): ((0.4913, 0.4820, 0.4463), (0.2275, 0.2244, 0.2442)),
  ("cifar10", 28): ((0.4916, 0.4824, 0.4467), (0.2394, 0.2360, 0.2547)),
  ("cifar10", 36): ((0.4917, 0.4824, 0.4468), (0.2411, 0.2376, 0.2563)),
  ("cifar10", 56): ((0.4917, 0.4824, 0.4468), (0.2411, 0.2377, 0.2563)),
  ("cifar10", 112): ((0.4917, 0.4824, 0.4468), (0.2411, 0.2377, 0.2563)),
  ("cifar10", 224): ((0.4914, 0.4822, 0.4465), (0.2413, 0.2378, 0.2564)),
  ("cifar100", 224): ((0.5070, 0.4865, 0.4409), (0.2622, 0.2513, 0.2714)),
  ("svhn_cropped", 224): ((0.4377, 0.4438, 0.4728), (0.1960, 0.1989, 0.1955)),
  ("tiny_imagenet", 224): ((0.4805, 0.4484, 0.3978), (0.2667, 0.2584, 0.2722)),
  ("oxford_flowers102", 56): (
    (0.5136, 0.4163, 0.3426),
    (0.2887, 0.2414, 0.2831),
  ),
  ("oxford_flowers102", 112): (
    (0.5115, 0.4160, 0.3410),
    (0.2951, 0.2488, 0.2882),
  ),
  ("imagenet100", 28): ((0.4582, 0.4504, 0.3887), (0.2512, 0.2345, 0.2508)),
  ("imagenet100", 56): ((0.4581, 0.4503, 0.3886), (0.2511, 0.2345, 0.2509)),
  ("imagenet100", 112): ((0.4583, 0.4505, 0.3889), (0.2512, 0.2347, 0.2510)),
}


def fit(config: Any, arguments: Arguments) -> None:
  """Sets what follows from the backbone and the pixels asked for, in place.

  Swin and T2T-ViT see 224 pixels, in batches of 64. [paper]
  """
  family = variants.family_of(config.model.backbone)
  if arguments.backbone and family != "vit":
    config.batch_size = 64
    resize(config, arguments.image_size or 224)
    config.model.patch_size = 4 if family == "swin" else None
  elif arguments.image_size not in (None, config.data.image_size):
    resize(config, arguments.image_size)
    if family == "vit":
      config.model.patch_size = patch_of(arguments.image_size)
  if arguments.backbone and family == "swin":
    config.loss.weights.drloc = 0.5
    config.model.window_size = window_of(config)
  if arguments.backbone and family == "t2t_vit":
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
  official = COLOURS.get((config.data.name, image_size))
  if official:
    config.data.update(mean=official[0], std=official[1])


def patch_of(image_size: int) -> int:
  """Pixels a side of a ViT's patch: the largest for at least 7×7 of them.

  At the official code's sizes as there: 2 at 14 pixels, 4 at 28, 32 and 36, 8
  at 56 and 64, 16 at 112, 32 at 224. [paper]
  """
  largest = max(1, image_size // 7)
  return max(n for n in range(1, largest + 1) if image_size % n == 0)


def window_of(config: Any) -> int | None:
  """None for the variant's window, or where it does not fit the next smaller.

  The official code takes Swin at 224 pixels alone, where 7 tokens fit.
  """
  sizes = variants.sizes_of(config.model.backbone)
  size, patch = config.data.image_size, config.model.patch_size
  try:
    grids = stages.stage_grids((size, size), patch, len(sizes["depth"]))
  except ValueError:  # Said by the checks, with what would be right.
    return None
  usual = sizes["window_size"]
  fitting = [n for n in stages.fitting_windows(grids) if n <= usual]
  return None if usual in fitting else max(fitting)


def strong(config: Any) -> None:
  """A recipe on which plain ViTs get good without any other task; in place.

  After Lee et al., "Vision Transformer for Small-Size Datasets" (2021), for 32
  and 64 pixels and the backbones vit_lee (theirs, of 2.8 M parameters) and
  vit_small; it changes the same for all others. Numbers are those of their
  released code, except where a comment says so. That code walks through the
  data three times in each of its 100 "epochs": 117,100 steps on CIFAR's 50,000
  images, where num_epochs=100 here makes 35,200 on the 45,000 that are not held
  out for validation; num_epochs=300 and augment.repeats=1 come close to it.
  """
  config.batch_size = 128
  config.augment.update(
    # Of the paper's text; the code repeats no image within a batch.
    repeats=3,
    # Theirs is AutoAugment, with a policy for each data set. This is timm's
    # rand-m9-mstd0.5-inc1, which needs none. [choice]
    rand_augment=2,
    rand_magnitude=9.0,
    rand_deviation=0.5,
    # Noise in up to a third of the image, as timm has it; theirs is one colour
    # in up to 0.4 of it. [choice]
    erasing=0.25,
  )
  if "label" in config.tasks:  # Else there is nothing to share.
    # Drawn for each image, theirs for each batch. [choice]
    config.augment.update(
      mixup_alpha=1.0,
      cutmix_alpha=1.0,
      mix_probability=0.5,
      cutmix_share=0.5,
    )
    config.loss.label_smoothing = 0.1
  # Theirs is 0.1 in every block; ours grows to it.
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
