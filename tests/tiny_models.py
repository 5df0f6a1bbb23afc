"""The smallest model that has a backbone, pairs and labels."""

import relvit_jax


def create(rngs, **sizes):
  return relvit_jax.create_model(
    "vit",
    image_size=8,
    patch_size=2,
    tasks=("relation", "label"),
    num_classes=10,
    embed_dim=12,
    depth=1,
    num_heads=2,
    rngs=rngs,
    **sizes,
  )
