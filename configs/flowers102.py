"""Flower-102, 224 pixels: 1,020 images to train on, as many to validate.

6,149 more to test on, of 102 classes.

[paper] ViT-S/32: supervised 42.08 ± 0.29, pre-trained 45.78 ± 0.75 %, trained
on train and reported, best epoch, on validation. Its normalisation is not
known: ours is measured.
"""

from ml_collections import ConfigDict
from relvit_jax.configs import common  # pyright: ignore[reportMissingImports]


def get_config(argument: str = "supervised") -> ConfigDict:
  """flowers102:STAGE,…, as `arguments.parse` reads it."""
  arguments = common.parse(argument)
  config = common.get_config(arguments)
  config.data.update(name="oxford_flowers102", image_size=224, stored_size=320)
  config.data.splits.update(train="train", validation="validation")
  config.data.paper_splits.update(validation="validation", test="validation")
  config.augment.update(crop="resized", eval_crop=224 / 256)
  config.model.patch_size = 32
  return common.finish(config, arguments)
