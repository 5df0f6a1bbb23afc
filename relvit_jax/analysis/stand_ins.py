"""What stands where a part of a step stood, so that the others are measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from relvit_jax.data import feed, splits
from relvit_jax.models import layers


class Given:
  """Stands where a backbone stood, and hands out tokens."""

  def __init__(self, backbone: Any, tokens: layers.Tokens):
    self.embed_dim, self.grid_size = backbone.embed_dim, backbone.grid_size
    self.features, self._tokens = backbone.features, tokens

  def __call__(self, images: Array, **others: Any) -> layers.Tokens:
    del images, others
    return self._tokens


class Same(feed.Resident):
  """The batch that it is given, in every step."""

  def __init__(self, like: feed.Feed, mesh: jax.sharding.Mesh):
    empty = splits.Split(
      "one batch",
      np.zeros((1, 1, 1, 3), np.uint8),
      np.zeros(1, np.int32),
      (),
    )
    super().__init__(empty, like.batch_size, like.max_steps, mesh)

  def batches(
    self, words: Array, data: feed.Batch, step: Array
  ) -> Callable[[Array], feed.Batch]:
    del words, step
    return lambda i: data
