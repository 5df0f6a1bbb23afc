"""Every key of a config, once: its default, its unit and where it is from.

Those of the group `augment` stand in `augment.py`.

A data set's file takes this config and sets what differs. `[paper]` is what
the official code runs (guglielmocamporese/relvit); `[quirk]` is behaviour of
that code which we take for a mistake: the default is the mended one, and
`faithful` turns every one of them to the official one; `[choice]` is ours.

None means that the value follows from others, as the comment says. What says
how strong something is changes nothing while that is off.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference
from relvit_jax.configs import (  # pyright: ignore[reportMissingImports]
  augment,
  recipes,
)
from relvit_jax.configs.arguments import (  # pyright: ignore[reportMissingImports]
  Arguments,
  parse,
)
from relvit_jax.configs.recipes import (  # pyright: ignore[reportMissingImports]
  faithful,
)

__all__ = ["Arguments", "faithful", "finish", "get_config", "parse"]


def optional(kind: type, default: Any = None) -> Any:
  """A value of this type, or None."""
  return FieldReference(default, field_type=kind)


def get_config(arguments: Arguments) -> ConfigDict:
  """The defaults of a stage, locked: a mistyped key raises."""
  stage = arguments.stage
  pretrain = stage == "pretrain"
  return ConfigDict(
    {
      # Of the run: its weights, order of examples, augmentation and dropout.
      "seed": 0,
      # pretrain, finetune, joint, supervised or linear: for messages; what a
      # stage does is in the other keys.
      "stage": stage,
      # Which heads and losses there are. [paper]: its scripts turn on
      # relation and position; distance and angle are there to be added.
      "tasks": arguments.tasks,
      # How long to train: exactly one of the two. An epoch has as many steps
      # as the paper's, examples / batch_size, rounded up. [paper]
      "num_epochs": optional(float, 100.0),
      "num_steps": optional(int),
      # Steps that run in one dispatch at most; changes no number. None: as
      # many as take about a second and a half, by their operations. [choice]
      "steps_per_dispatch": optional(int),
      # Images a step, over all devices. [paper]
      "batch_size": 256,
      # Images an evaluation batch, over all devices. [choice]
      "eval_batch_size": 256,
      # Steps from one evaluation, and checkpoint, to the next. None: an epoch.
      # [paper]
      "eval_every": optional(int),
      # How many checkpoints stay, besides the best. [choice]
      "keep_checkpoints": 1,
      # Where the backbone's weights come from: a work directory, or a
      # checkpoint in it. None: from the seed.
      "init_from": optional(str),
      # Which checkpoint of that directory: last or best. [paper]: best.
      "init_checkpoint": "best" if stage in ("finetune", "linear") else "last",
      # Whether only the heads are trained.
      "freeze_backbone": stage == "linear",
      "data": {
        # cifar10, cifar100, svhn_cropped, oxford_flowers102, tiny_imagenet,
        # imagenet100, folder or digits.
        "name": "digits",
        # The image folder, for folder; the file with the list of classes, for
        # imagenet100.
        "folder": optional(str),
        "classes": optional(str),
        # Where prepared data lies. None: as TFDS, ~/tensorflow_datasets.
        "dir": optional(str),
        # What each part is, in TFDS's language. The best checkpoint is chosen
        # on validation, and test chooses nothing. [choice]: validation is
        # held out of train.
        "splits": {
          "train": "train[:90%]",
          "validation": "train[90%:]",
          "test": "test",
        },
        # [quirk]: the official code trains on all of train and chooses the
        # best epoch on the very images it reports. `faithful` takes these.
        "paper_splits": {
          "train": "train",
          "validation": "test",
          "test": "test",
        },
        # Pixels a side of what the model sees, before mega-patches.
        "image_size": 32,
        # Pixels a side of the square in which images of many sizes wait to be
        # cropped. None: they all have one size.
        "stored_size": optional(int),
        # Images that may be skipped as unreadable before preparing fails.
        "max_skipped": 0,
        # Mean and standard deviation of red, green and blue, of 1.
        # None: measured on the training split. [paper] where it has them.
        "mean": optional(tuple),
        "std": optional(tuple),
        # auto, resident (the split on the device) or streaming (decoded on
        # the host); auto is resident where the split fits. Changes no number,
        # unless crop_at_decode does.
        "feed": "auto",
        # Whether a streaming feed cuts what is shown out of the whole image as
        # it decodes it, and rounds to 8 bits: a crop then has all the pixels
        # that the file has for it, where stored_size leaves it those of a small
        # square, and takes 1.5 ms of a core instead of 1.9. Boxes are drawn
        # from the same distribution, but are others. None: where images of
        # many sizes are cropped `resized`. [paper]: so are its crops.
        "crop_at_decode": optional(bool),
        # Processes that decode for a streaming feed; 0: threads. None: threads
        # on up to four cores, else a process for each core but one, at most
        # 16; data/read_ahead.py has the measurement. Changes no number.
        "num_workers": optional(int),
      },
      "augment": augment.group(pretrain),
      "model": {
        # A name for relvit_jax.create_model. [paper]
        "backbone": arguments.backbone or "vit_small",
        # Pixels. [paper]: 4 at 32 pixels, 8 at 64, 32 at 224. Of Swin the
        # first stage's, 4, of which 8 a side make a patch that heads see; None
        # for T2T-ViT, which cuts its own: the heads' patches have 32.
        "patch_size": optional(int, 4),
        # None: as the name says. Of Swin, depth and num_heads have a number
        # for each stage, such as 2,2,6,2.
        "embed_dim": optional(int),
        "depth": optional(object),
        "num_heads": optional(object),
        "mlp_ratio": optional(float),
        # Of Swin: tokens a side of a window. None: 7, as the name says.
        "window_size": optional(int),
        # Of T2T-ViT: width of the tokens before the last split, the attention
        # between splits (performer or transformer), and its dropout. None: as
        # the name says.
        "token_dim": optional(int),
        "tokens_type": optional(str),
        "token_dropout_rate": optional(float),
        # Positional embeddings. [paper]: off while pre-training, where they
        # would give the answer away; on in joint training, where they do.
        "pos_embed": not pretrain,
        # Of ViT: learned, or sinusoidal ones that are not trained. None:
        # learned. [paper]: no flag turns to the others.
        "pos_embed_type": optional(str),
        # A class token in the sequence. [paper]: its flag cannot turn it off.
        "cls_token": True,
        # Whether the pair and position heads see each patch with the class
        # token added. [paper]: off.
        "cls_to_patches": False,
        # Of ViT: diagonal (a token attends to itself alone) or
        # diagonal_cls_row (but the class token to all). [paper]: None.
        "attention_mask": optional(str),
        # Of ViT: whether query, key and value have a bias. None: as the name
        # says.
        "qkv_bias": optional(bool),
        # What to compute in: float32 or bfloat16. Parameters, softmax, norms,
        # losses and the optimiser are float32 in any case; gradients are
        # summed over devices in this type. None: bfloat16 where a device has
        # units for it, else float32. [choice]
        "dtype": optional(str),
        # Of ViT and T2T-ViT: how attention is computed. einsum, products (ours,
        # for CPUs), kernel (ours, for TPUs), triton (ours, for GPUs), xla or
        # cudnn (both of JAX, the last for GPUs). None: ours for the device
        # where it fits, else einsum. Changes no number. [choice]
        "attention": optional(str),
        # Whether the backward pass computes GELU again: less memory traffic,
        # more work. None: on a TPU. Changes no number. [choice]
        "recompute_gelu": optional(bool),
        # Whether GELU, and of ViT and T2T-ViT a branch's sum with the norm
        # after it, are kernels of ours for NVIDIA GPUs. None: where bfloat16 is
        # computed on one. Changes no number. [choice]
        "block_kernels": optional(bool),
        # Of ViT and T2T-ViT: whether blocks are compiled once and looped over:
        # compiles faster, runs slower. None: no. Changes no number. [choice]
        "scan_layers": optional(bool),
        # Shares from 0 to 1. [paper]
        "dropout_rate": 0.0,
        "attention_dropout_rate": 0.0,
        "drop_path_rate": 0.1,
      },
      "loss": {
        # What a task counts in the sum. [paper]
        "weights": {
          "relation": 1.0,
          "distance": 1.0,
          "angle": 1.0,
          "position": 1.0,
          "label": 1.0,
          # Where its ramp is highest. VTs-Drloc: 0.5 for Swin, 0.1 for others.
          "drloc": 0.1,
        },
        # L_drloc, as VTs-Drloc has it, of the task drloc.
        "drloc": {
          # Pairs of patches an image.
          "num_pairs": 64,
          # l1 (the difference, in patches), ce or cbr (which difference).
          "mode": "l1",
          # Whether a difference has no sign.
          "use_abs": True,
          # Of l1, whether differences are shares of the side, as in its paper,
          # which also sums over rows and columns, where its code takes a mean:
          # on 7×7 patches the loss is 3.5 times the paper's, or 0.5 with True.
          "normalise_targets": False,
          # Share of the run in which the weight climbs from 0; then it falls
          # to 0 at the end. Its published runs of "100 epochs" are the first
          # 101 of 300, and end at 0.71 of the weight.
          "warmup_share": 20 / 300,
        },
        # Share of the target spread over all classes. [paper]: none.
        "label_smoothing": 0.0,
        "relation_smoothing": 0.0,
        # Chance of a pair to be left out of the relation loss. [paper]: none.
        "relation_dropout": 0.0,
        # [quirk]: the official code forgets relation_dropout unless
        # relation_smoothing is on.
        "relation_dropout_needs_smoothing": False,
        # First patches of a block, at most, of the relation, distance and
        # angle losses: the memory that these need grows with it. 0: all pairs
        # at once. None: as the number of patches asks. Changes no number by
        # more than rounding. [choice]
        "pair_block": optional(int),
      },
      "optimizer": {
        # Learning rates at the end of the warm-up and of the run. [paper]
        "lr": 5e-4,
        "end_lr": 1.25e-6,
        # paper (a tenth of warm-up from 0, a quarter of a cosine) or cosine
        # (half of one). [paper]
        "schedule": "paper",
        # Of cosine: share of the run, and learning rate at its first step.
        "warmup_share": 0.1,
        "warmup_lr": 0.0,
        # In units of the learning rate, on every parameter that has a
        # gradient, and whether biases, norms and embeddings are among them.
        # [paper]
        "weight_decay": 0.1,
        "decay_all": True,
        # How much of the moving average of the weights stays in a step; the
        # average is then what is evaluated, chosen as best and fine-tuned
        # from. None: there is no average. [paper]
        "ema_decay": optional(float),
        # Largest global norm of the gradients. None: not clipped. [paper]
        "clip_norm": optional(float, 1.0),
      },
      "logs": {
        # Event files for TensorBoard in the work directory.
        "tensorboard": True,
        # Project at Weights & Biases. None: nothing is sent.
        "wandb": optional(str),
      },
      "mesh": {
        # Devices over which one copy of the parameters is spread. [choice]
        "fsdp": 1,
      },
    }
  ).lock()


def finish(config: Any, arguments: Arguments) -> Any:
  """The last line of every data set's file: what the arguments still ask."""
  recipes.fit(config, arguments)
  if arguments.strong:
    recipes.strong(config)
  return faithful(config) if arguments.faithful else config
