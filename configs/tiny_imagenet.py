"""Tiny-ImageNet, 64×64 pixels: 100,000 and 10,000 images of 200 classes.

[paper] ViT-S/8: supervised 43.19 ± 0.78, pre-trained 51.98 ± 0.20 % (best
epoch on the 10,000 validation images, as those for testing have no labels;
here they are called test).
"""

from ml_collections import ConfigDict
from relvit_jax.configs import common  # pyright: ignore[reportMissingImports]


def get_config(argument: str = "supervised") -> ConfigDict:
  """tiny_imagenet:STAGE,…, as `arguments.parse` reads it."""
  arguments = common.parse(argument)
  config = common.get_config(arguments)
  config.data.update(
    name="tiny_imagenet",
    image_size=64,
    mean=(0.4802, 0.4481, 0.3975),
    std=(0.2770, 0.2691, 0.2821),
  )
  config.data.splits.test = "validation"
  config.data.paper_splits.update(validation="validation", test="validation")
  config.model.patch_size = 8
  return common.finish(config, arguments)
