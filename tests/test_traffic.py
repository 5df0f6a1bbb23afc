"""The kernels of every backbone; their products stand in test_flops."""

import pytest

from relvit_jax.models import kernels, traffic, variants

SIZES = {"vit": (32, 4), "swin": (224, 4), "t2t_vit": (224, None)}


@pytest.mark.parametrize("family", SIZES)
def test_a_block_more_is_the_kernels_of_a_block(family):
  backbone = variants.FAMILIES[family].variant
  depth = variants.sizes_of(backbone)["depth"]
  deeper = (*depth[:-1], depth[-1] + 1) if family == "swin" else depth + 1
  shallow, deep = (
    traffic.per_step(backbone, *SIZES[family], depth=d).backbone
    for d in (depth, deeper)
  )
  block = {
    "vit": (65, 65, 384, 4.0),
    "swin": (49, 49, 768, 4.0),
    "t2t_vit": (197, 197, 384, 3.0),
  }[family]
  assert sorted(shallow + list(kernels.block(*block))) == sorted(deep)


def test_scores_of_all_pairs_are_moved():
  """Read by the loss, written, read and written back by its gradient."""
  narrow, wide = (
    sum(
      kernel.elements
      for kernel in traffic.per_step("vit", size, 4).heads["relation"]
      if "loss" in kernel.name
    )
    for size in (32, 64)
  )
  assert (narrow, wide) == (3 * 9 * 64**2, 3 * 9 * 256**2)
