"""What each value of a config may be, by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from relvit_jax import config as configs
from relvit_jax.models import variants

STAGES = ("pretrain", "finetune", "joint", "supervised", "linear")

# Pixels a side of the data sets whose images all have one size.
NATIVE_SIZES = {
  "cifar10": 32,
  "cifar100": 32,
  "svhn_cropped": 32,
  "tiny_imagenet": 64,
  "digits": 8,
}
DATA_SETS = (*NATIVE_SIZES, "oxford_flowers102", "imagenet100", "folder")

# Keys that may be None.
OPTIONAL = {
  "num_epochs",
  "num_steps",
  "steps_per_dispatch",
  "eval_every",
  "init_from",
  "data.folder",
  "data.classes",
  "data.dir",
  "data.stored_size",
  "data.mean",
  "data.std",
  "data.crop_at_decode",
  "data.num_workers",
  "augment.eval_crop",
  "model.patch_size",
  "model.embed_dim",
  "model.depth",
  "model.num_heads",
  "model.mlp_ratio",
  "model.window_size",
  "model.qkv_bias",
  "model.pos_embed_type",
  "model.attention_mask",
  "model.dtype",
  "model.attention",
  "model.recompute_gelu",
  "model.block_kernels",
  "model.scan_layers",
  "model.token_dim",
  "model.tokens_type",
  "model.token_dropout_rate",
  "loss.pair_block",
  "optimizer.clip_norm",
  "optimizer.ema_decay",
  "logs.wandb",
}


def _within(low: int, high: int, words: str) -> tuple[Callable, str]:
  return lambda value: low <= value <= high, words


_POSITIVE = (lambda value: value > 0 and math.isfinite(value), "more than 0")
_COUNT = (lambda value: value >= 1, "at least 1")
_NOT_NEGATIVE = (
  lambda value: value >= 0 and math.isfinite(value),
  "0 or more",
)
_SHARE = _within(0, 1, "between 0 and 1")
_COUNTS = (
  lambda value: (
    all(
      count > 0 for count in (value if isinstance(value, tuple) else (value,))
    )
    and value != ()
  ),
  "at least 1",
)
_RATE = (lambda value: 0 <= value < 1, "0 or more and below 1")


def _one_of(*names: str) -> tuple[Callable, str]:
  return lambda value: value in names, f"one of {', '.join(names)}"


def _numbers(
  count: int, is_right: Callable[[Any], bool], words: str
) -> tuple[Callable, str]:
  def holds(values: Any) -> bool:
    return (
      len(values) == count
      and all(configs.fits(value, float) for value in values)
      and is_right(values)
    )

  return holds, words


# Key → (whether a value holds, what it must be). The order is that of common.
LIMITS: dict[str, tuple[Callable[[Any], bool], str]] = {
  "seed": _within(0, 2**32 - 1, "a whole number of 32 bits"),
  "stage": _one_of(*STAGES),
  "num_epochs": _POSITIVE,
  "num_steps": _COUNT,
  "steps_per_dispatch": _COUNT,
  "batch_size": _COUNT,
  "eval_batch_size": _COUNT,
  "eval_every": _COUNT,
  "keep_checkpoints": _COUNT,
  "init_checkpoint": _one_of("last", "best"),
  "data.name": _one_of(*DATA_SETS),
  "data.image_size": _COUNT,
  "data.stored_size": _COUNT,
  "data.max_skipped": _NOT_NEGATIVE,
  "data.mean": _numbers(
    3, lambda m: 0 <= min(m) <= max(m) <= 1, "3 numbers between 0 and 1"
  ),
  "data.std": _numbers(3, lambda s: min(s) > 0, "3 numbers above 0"),
  "data.feed": _one_of("auto", "resident", "streaming"),
  "data.num_workers": _NOT_NEGATIVE,
  "augment.crop": _one_of("pad", "resized", "none"),
  "augment.crop_padding": _NOT_NEGATIVE,
  "augment.crop_scale": _numbers(
    2, lambda s: 0 < s[0] <= s[1] <= 1, "two shares above 0, ascending"
  ),
  "augment.crop_ratio": _numbers(
    2, lambda r: 0 < r[0] <= r[1], "two numbers above 0, ascending"
  ),
  "augment.flip": _SHARE,
  "augment.repeats": _COUNT,
  "augment.rand_augment": _NOT_NEGATIVE,
  "augment.rand_magnitude": _within(0, 10, "between 0 and 10"),
  "augment.rand_deviation": _NOT_NEGATIVE,
  "augment.erasing": _SHARE,
  "augment.mixup_alpha": _NOT_NEGATIVE,
  "augment.cutmix_alpha": _NOT_NEGATIVE,
  "augment.mix_probability": _SHARE,
  "augment.cutmix_share": _SHARE,
  "augment.eval_crop": (lambda v: 0 < v <= 1, "above 0 and at most 1"),
  "augment.mega_patches": _NOT_NEGATIVE,
  "augment.patch_crop": (lambda v: 1 <= v <= 4, "between 1 (no crop) and 4"),
  "augment.patch_jitter": _SHARE,
  "augment.jitter_strength": _numbers(
    4,
    lambda s: min(s) >= 0 and s[3] <= 0.5,
    "4 numbers of 0 or more, the last (hue) at most 0.5",
  ),
  "augment.patch_grey": _SHARE,
  "model.patch_size": _COUNT,
  "model.embed_dim": _COUNT,
  "model.depth": _COUNTS,
  "model.num_heads": _COUNTS,
  "model.mlp_ratio": _POSITIVE,
  "model.window_size": _COUNT,
  "model.pos_embed_type": _one_of(*variants.POS_EMBED_TYPES),
  "model.attention_mask": _one_of(*variants.ATTENTION_MASKS),
  "model.dtype": _one_of("float32", "bfloat16"),
  "model.attention": _one_of(*variants.ATTENTIONS),
  # Of a performer half as many random features are drawn.
  "model.token_dim": (lambda value: value >= 2, "at least 2"),
  "model.tokens_type": _one_of("performer", "transformer"),
  "model.token_dropout_rate": _RATE,
  "model.dropout_rate": _RATE,
  "model.attention_dropout_rate": _RATE,
  "model.drop_path_rate": _RATE,
  **{f"loss.weights.{task}": _NOT_NEGATIVE for task in variants.ALL_TASKS},
  "loss.drloc.num_pairs": _COUNT,
  "loss.drloc.mode": _one_of(*variants.DRLOC_MODES),
  "loss.drloc.warmup_share": _RATE,
  "loss.label_smoothing": _RATE,
  "loss.relation_smoothing": _RATE,
  "loss.relation_dropout": _RATE,
  "loss.pair_block": _NOT_NEGATIVE,
  "optimizer.lr": _POSITIVE,
  "optimizer.end_lr": _NOT_NEGATIVE,
  "optimizer.schedule": _one_of("paper", "cosine"),
  "optimizer.warmup_share": _RATE,
  "optimizer.warmup_lr": _NOT_NEGATIVE,
  "optimizer.weight_decay": _NOT_NEGATIVE,
  "optimizer.ema_decay": _RATE,
  "optimizer.clip_norm": _POSITIVE,
  "mesh.fsdp": _COUNT,
}
