"""What a step needs by formula: operations, parameters, type."""

import jax
import jax.numpy as jnp

from relvit_jax import config
from relvit_jax.analysis import benchmark, needs
from relvit_jax.models import flops
from relvit_jax.training import partitioning
from relvit_jax.training.stage import Stage


def needs_of(name, **keys):
  settings = config.load(name)
  settings.update_from_flattened_dict({"batch_size": 16} | keys)
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  colours = (0.5,) * 3, (0.25,) * 3
  return needs.Needs(
    Stage(settings, benchmark.synthetic(settings), mesh, colours)
  )


def test_a_frozen_backbone_has_no_backward_pass():
  whole, frozen = (
    needs_of("digits:supervised", **{"freeze_backbone": value})
    for value in (False, True)
  )
  cost = flops.per_image(
    *("vit", 8, 2, ("label",), 10),
    **{"embed_dim": 32, "depth": 2, "num_heads": 2},
  )
  assert whole.flops("step") == 16 * cost.total.training
  assert frozen.flops("step") == 16 * (
    cost.backbone.forward + cost.heads["label"].training
  )
  assert frozen.parameters == 32 * 10 + 10
  assert whole.dtype == jnp.float32
