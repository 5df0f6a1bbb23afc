"""Every key of a config, once: its default, its unit and where it is from.

A data set's file takes this config and sets what differs. `[paper]` is the
official code's recipe (guglielmocamporese/relvit), `[choice]` is ours.
"""

from ml_collections import ConfigDict

# What a stage learns. Pre-training sees no labels; the others do.
STAGE_TASKS = {
  "pretrain": ("relation", "position"),
  "finetune": ("label",),
  "joint": ("label", "relation", "position"),
  "supervised": ("label",),
}


def get_config(stage: str = "supervised") -> ConfigDict:
  """The defaults of a stage, locked: a mistyped key raises."""
  if stage not in STAGE_TASKS:
    raise ValueError(
      f"the stage {stage!r} does not exist; there are {', '.join(STAGE_TASKS)}"
    )
  return ConfigDict(
    {
      # Which heads and losses there are. [paper]: its scripts turn on
      # relation and position; distance and angle are there to be added.
      "tasks": STAGE_TASKS[stage],
      # Training steps, and how many of them run in one dispatch. [choice]
      "num_steps": 19_600,
      "steps_per_dispatch": 100,
      # Images a step, over all devices. [paper]
      "batch_size": 256,
      # Images an evaluation batch, over all devices. [choice]
      "eval_batch_size": 256,
      # Steps from one evaluation to the next. [choice]
      "eval_every": 1_000,
      "data": {
        # A source of relvit_jax.data.sources.
        "name": "digits",
        # Pixels by which an image may be shifted. [paper]: 4 at 32 pixels.
        "crop_padding": 4,
        # Whether patches are shown in random order, pixels and targets
        # together. [paper]: off in all scripts.
        "permute_patches": False,
      },
      "model": {
        # A name for relvit_jax.create_model. [paper]
        "backbone": "vit_small",
        # Pixels. [paper]: 4 at 32 pixels, 8 at 64, 32 at 224.
        "patch_size": 4,
        # Positional embeddings. [paper]: off while pre-training, where they
        # would give the answer away.
        "pos_embed": stage != "pretrain",
        # A class token in the sequence. [paper]
        "cls_token": True,
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
        },
        # Share of the target spread over all classes. [paper]: none.
        "label_smoothing": 0.0,
        "relation_smoothing": 0.0,
        # Chance of a pair to be left out of the relation loss. [paper]: none.
        "relation_dropout": 0.0,
      },
      "optimizer": {
        # Learning rates at the end of the warm-up and of the run. [paper]
        "lr": 5e-4,
        "end_lr": 1.25e-6,
        # In units of the learning rate, on every parameter. [paper]
        "weight_decay": 0.1,
        # Largest global norm of the gradients. [paper]
        "clip_norm": 1.0,
      },
      "mesh": {
        # Devices over which one copy of the parameters is spread. [choice]
        "fsdp": 1,
      },
    }
  ).lock()
