"""What the parts of a training step need at least, by formula."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from relvit_jax import config_limits
from relvit_jax.models import kernels, traffic
from relvit_jax.training import stage as stages


class Needs:
  """What a step needs at least, by formula; see `models/kernels.py`.

  Attributes:
    batch: images a step.
    parameters: that are trained.
    element_bytes: of a number in the type that the model computes in.
  """

  def __init__(self, stage: stages.Stage):
    config = stage.config
    self.batch = config.batch_size
    shapes = stage.state_shapes
    size = stage.views.model_size
    tokens = jax.eval_shape(
      lambda state, images: stage.model(state).backbone(images),
      shapes,
      jax.ShapeDtypeStruct((self.batch, size, size, 3), np.float32),
    )
    self.dtype = tokens.patches.dtype
    self.element_bytes = self.dtype.itemsize
    self.parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes.params))
    sizes = {k: v for k, v in config.model.items() if v is not None}
    made = traffic.per_step(
      sizes.pop("backbone"),
      size,
      sizes.pop("patch_size", None),
      tuple(config.tasks),
      len(stage.class_names) or None,
      **sizes,
    )
    self._heads = [one for head in made.heads.values() for one in head]
    self._model = made.backbone + self._heads
    if config.freeze_backbone:
      forward = [kernel for kernel in made.backbone if not kernel.backward]
      self._model = forward + self._heads
    stored = stage.feed.batch_size * int(np.prod(_stored_shape(stage)))
    self._bytes = {
      # Read as uint8, written as float32; and read and written as uint8.
      "augmentation": stored + 4 * self.batch * 3 * size**2,
      "feed": 2 * stored,
      "optimizer": kernels.optimizer_bytes(self.parameters),
    }

  def _kernels(self, name: str) -> Sequence[kernels.Kernel]:
    if name == "heads":
      return self._heads
    return () if name in self._bytes else self._model

  def flops(self, name: str) -> int:
    """Operations in matrix products of a step of a part."""
    return self.batch * sum(kernel.flops for kernel in self._kernels(name))

  def seconds(
    self, name: str, rate: float | int, bandwidth: float | int
  ) -> float | int:
    """The least time for a step of a part."""
    needed = kernels.seconds(
      self._kernels(name), self.batch, rate, bandwidth, self.element_bytes
    )
    own = self._bytes.get(name, 0)
    if self._kernels(name) is self._model:
      own = self._bytes["optimizer"]
    return needed + own / bandwidth


def _stored_shape(stage: stages.Stage) -> tuple[int, ...]:
  data = stage.config.data
  side = config_limits.NATIVE_SIZES.get(data.name) or data.stored_size
  return side, side, 3
