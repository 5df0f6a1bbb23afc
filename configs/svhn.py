"""SVHN, 32×32 pixels: 73,257 and 26,032 house numbers of 10 classes.

[paper] ViT-S/4: supervised 96.01 ± 0.07, pre-trained 97.14 ± 0.03, joint
96.41 ± 0.39 % (best epoch on test).
"""

from ml_collections import ConfigDict
from relvit_jax.configs import common  # pyright: ignore[reportMissingImports]


def get_config(argument: str = "supervised") -> ConfigDict:
  """svhn:STAGE,…, as `arguments.parse` reads it."""
  arguments = common.parse(argument)
  config = common.get_config(arguments)
  config.data.update(
    name="svhn_cropped",
    mean=(0.4378, 0.4439, 0.4729),
    std=(0.1981, 0.2011, 0.1970),
  )
  return common.finish(config, arguments)
