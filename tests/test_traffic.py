"""The kernels of every backbone compute what the formula says."""

import pytest

from relvit_jax.models import flops, kernels, traffic, variants

SIZES = {"vit": (32, 4), "swin": (224, 4), "t2t_vit": (224, None)}


@pytest.mark.parametrize("backbone", variants.SIZES)
@pytest.mark.parametrize(
  "tasks", [("relation", "position"), variants.ALL_TASKS]
)
def test_products_are_those_of_the_formula(backbone, tasks):
  sizes = SIZES[variants.family_of(backbone)]
  made = traffic.per_step(backbone, *sizes, tasks, 10)
  cost = flops.per_image(backbone, *sizes, tasks, 10)
  for found, expected in (
    (made.backbone, cost.backbone),
    (made.heads, sum(cost.heads.values(), start=flops.Flops())),
  ):
    assert sum(k.flops for k in found if not k.backward) == expected.forward
    assert sum(k.flops for k in found if k.backward) == expected.backward


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
      for kernel in traffic.per_step("vit", size, 4, ("relation",)).heads
      if "loss" in kernel.name
    )
    for size in (32, 64)
  )
  assert (narrow, wide) == (3 * 9 * 64**2, 3 * 9 * 256**2)
