"""CIFAR-10, 32×32 pixels: 50,000 and 10,000 images of 10 classes.

[paper] ViT-S/4: supervised 86.09 ± 0.46, pre-trained 90.23 ± 0.09, joint
89.27 ± 0.23 % (best epoch on test).
"""

from ml_collections import ConfigDict
from relvit_jax.configs import common  # pyright: ignore[reportMissingImports]


def get_config(argument: str = "supervised") -> ConfigDict:
  """cifar10:STAGE,…, as `arguments.parse` reads it."""
  arguments = common.parse(argument)
  config = common.get_config(arguments)
  config.data.update(
    name="cifar10",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
  )
  return common.finish(config, arguments)
