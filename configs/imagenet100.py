"""ImageNet-100, 224 pixels: 100 classes of ImageNet, `data.classes` names them.

[paper] ViT-S/32: supervised 58.04 ± 0.91, pre-trained 66.46 ± 0.45 % (best
epoch on validation, which here is called test), on the 100 classes of Kaggle's
ambityga/imagenet100.
"""

from ml_collections import ConfigDict
from relvit_jax.configs import common  # pyright: ignore[reportMissingImports]


def get_config(argument: str = "supervised") -> ConfigDict:
  """imagenet100:STAGE,…, as `arguments.parse` reads it."""
  arguments = common.parse(argument)
  config = common.get_config(arguments)
  config.data.update(
    name="imagenet100",
    image_size=224,
    stored_size=256,
    mean=(0.4595, 0.4520, 0.3900),
    std=(0.2547, 0.2385, 0.2548),
  )
  config.data.splits.test = "validation"
  config.data.paper_splits.update(validation="validation", test="validation")
  config.augment.update(crop="resized", eval_crop=224 / 256)
  config.model.patch_size = 32
  return common.finish(config, arguments)
