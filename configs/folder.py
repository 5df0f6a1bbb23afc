"""Your own images: `--config.data.folder=PATH`, with train/CLASS/* in it.

val/CLASS/* and test/CLASS/* are used where they are; without val a tenth of
train is held out, without test the validation images are tested on. Images
without classes, in train/ or in the folder itself, can be pre-trained on.
Images of any size are kept at 80×80 pixels and shown at 64×64;
`folder:STAGE,224` keeps and shows them larger.
"""

from ml_collections import ConfigDict
from relvit_jax.configs import common  # pyright: ignore[reportMissingImports]


def get_config(argument: str = "supervised") -> ConfigDict:
  """folder:STAGE,…, as `arguments.parse` reads it."""
  arguments = common.parse(argument)
  config = common.get_config(arguments)
  config.data.update(name="folder", image_size=64, stored_size=80)
  parts = {"train": "train", "validation": "validation", "test": "test"}
  config.data.splits.update(parts)
  config.data.paper_splits.update(parts | {"validation": "test"})
  config.augment.update(crop="resized", crop_scale=(0.2, 1.0), eval_crop=0.8)
  config.model.patch_size = 8
  return common.finish(config, arguments)
