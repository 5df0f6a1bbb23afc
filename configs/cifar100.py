"""CIFAR-100, 32×32 pixels: 50,000 and 10,000 images of 100 classes.

[paper] ViT-S/4: supervised 59.19 ± 0.84, pre-trained 64.99 ± 0.46, joint
61.92 ± 0.19 % (best epoch on test).
"""

from ml_collections import ConfigDict
from relvit_jax.configs import common  # pyright: ignore[reportMissingImports]


def get_config(argument: str = "supervised") -> ConfigDict:
  """cifar100:STAGE,…, as `arguments.parse` reads it."""
  arguments = common.parse(argument)
  config = common.get_config(arguments)
  config.data.update(
    name="cifar100",
    mean=(0.5071, 0.4866, 0.4409),
    std=(0.2673, 0.2564, 0.2761),
  )
  return common.finish(config, arguments)
