"""What devices tell each other: read from text, and no more than is due."""

import math
import pathlib
import re

import jax
import numpy as np
import pytest
import relvit_jax.configs
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from relvit_jax import config, config_limits
from relvit_jax.analysis import hlo_collectives
from relvit_jax.data import outlines
from relvit_jax.models import variants
from relvit_jax.training import datasets, partitioning
from relvit_jax.training.stage import Stage

MESH = jax.make_mesh(
  (4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto)
)


def found(function, given, made):
  """The collectives of a function of x, a float32 [16, 6], laid out so."""
  x = jax.ShapeDtypeStruct((16, 6), np.float32, sharding=placed(*given))
  program = jax.jit(function, out_shardings=placed(*made)).lower(x).compile()
  return hlo_collectives.collectives(program.as_text())


def placed(*axes):
  return NamedSharding(MESH, P(*axes))


@pytest.mark.parametrize(
  ("function", "given", "made", "kind", "elements", "devices", "sent"),
  [
    # Rows over all eight: each sends its sums of six columns up and down.
    (lambda x: x.sum(0), (("data", "fsdp"),), (), "all-reduce", 6, 8, 42),
    # Over pairs: half of the rows are with the other.
    (lambda x: x + 1, ("fsdp",), (), "all-gather", 96, 2, 192),
    (lambda x: x + 1, (("data", "fsdp"),), (), "all-gather", 96, 8, 336),
  ],
)
def test_an_exchange_has_a_size_and_takers(
  function, given, made, kind, elements, devices, sent
):
  [one] = found(function, given, made)
  assert (one.kind, one.elements, one.devices) == (kind, elements, devices)
  assert one.size == 4 * elements
  assert (one.times, one.in_step) == (1, True)
  assert one.sent(8) == sent


def test_what_stays_at_its_place_is_no_exchange():
  assert found(lambda x: x + 1, ("data",), ("data",)) == []


TEXT = """\
HloModule example

%all-reduce-scatter.2 (a: bf16[256,8]) -> bf16[16,8] {
  %a = bf16[256,8]{1,0} parameter(0), metadata={op_name="gradient"}
  %r = bf16[256,8]{1,0} all-reduce(%a), channel_id=3, replica_groups=[16,16]<=[256], to_apply=%add
  ROOT %s = bf16[16,8]{1,0} dynamic-slice(%r), dynamic_slice_sizes={16,8}
}

%begun (p: bf16[16,8]) -> bf16[32,8] {
  %p = bf16[16,8]{1,0} parameter(0)
  ROOT %g = bf16[32,8]{1,0} all-gather(%p), channel_id=7, replica_groups=mesh['a'=128,'b'=2] {'b'}, dimensions={0}
}

ENTRY %main (x: bf16[256,8]) -> (bf16[16,8], bf16[32,8]) {
  %x = bf16[256,8]{1,0} parameter(0), metadata={op_name="gradient"}
  %part = bf16[16,8]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.2
  %first = bf16[32,8]{1,0} fusion(%part), kind=kCustom, calls=%begun
  %second = bf16[32,8]{1,0} fusion(%part), kind=kCustom, calls=%begun
  %third = (bf16[16,8]{1,0}, bf16[32,8]{1,0}) all-gather-start(%part), channel_id=8, replica_groups={{0,1},{2,3}}, dimensions={0}
  %pair = bf16[32,8]{1,0} all-gather-done(%third)
  %wrapped = ((bf16[16,8]{1,0}), bf16[16,8]{1,0}) async-start(%part), calls=%permuted
  ROOT %all = (bf16[16,8]{1,0}, bf16[32,8]{1,0}) tuple(%part, %pair)
}

%permuted (p: bf16[16,8]) -> bf16[16,8] {
  %p = bf16[16,8]{1,0} parameter(0)
  ROOT %q = bf16[16,8]{1,0} collective-permute(%p), channel_id=9, source_target_pairs={{0,1},{1,0}}
}
"""  # noqa: E501


def test_in_a_fusion_and_begun_early_each_counts_once():
  found = hlo_collectives.collectives(TEXT)
  assert [one[:4] for one in found] == [
    ("reduce-scatter", 2048, 4096, 16),
    # Spread over two fusions.
    ("all-gather", 256, 512, 2),
    ("all-gather", 256, 512, 2),
    ("collective-permute", 128, 256, 0),
  ]
  assert [one.sent(256) for one in found] == [4096 * 15 / 16, 256, 256, 256]


# Small, as what is exchanged does not follow from sizes.
SMALL = {
  "vit": {"embed_dim": 16, "depth": 1, "num_heads": 2},
  "swin": {"embed_dim": 8, "depth": (1,) * 4, "num_heads": (1,) * 4},
  "t2t_vit": {"token_dim": 8, "embed_dim": 16, "depth": 1, "num_heads": 2},
}
# Numbers a step that are counted and shown, at most.
METRICS = 40


def small(spec, fsdp=1):
  """The stage of a config on eight devices, of a small model."""
  settings = config.load(spec)
  family = variants.family_of(settings.model.backbone)
  settings.model.update(SMALL[family])
  if settings.data.name == "folder":
    classes = tuple(map(str, range(10)))
    train = outlines.Outline("mine", 999, classes, 80, True).split()
  else:
    train = datasets.outline(settings, 2**32).splits["train"]
  return Stage(
    settings,
    train,
    partitioning.make_mesh(fsdp),
    ((0.5,) * 3, (0.25,) * 3),
  )


def exchanged(stage):
  """The collectives of what training dispatches."""
  program = stage.train_steps.lower(
    stage.state_shapes,
    stage.feed.outline(),
    jax.ShapeDtypeStruct((), np.int32),
  ).compile()
  return hlo_collectives.collectives(program.as_text())


# Of every data set one, and all that differs in how batches are drawn, shown
# and learnt; what else there is, is slow.
SOME = (
  "cifar10:joint,strong",
  "cifar100:finetune",
  "digits:pretrain",
  "flowers102:supervised,swin_tiny,drloc",
  "folder:linear",
  "imagenet100:joint,t2t_vit_14",
  "svhn:supervised",
  "tiny_imagenet:joint,drloc",
)
BACKBONES = ("", ",swin_tiny", ",swin_tiny,drloc", ",t2t_vit_14", ",strong")
CONFIGS = sorted(
  path.stem
  for path in pathlib.Path(relvit_jax.configs.__path__[0]).glob("*.py")
  if path.stem not in ("__init__", *config.SHARED)
)
ALL = [
  f"{data}:{stage}{backbone}"
  for data in CONFIGS
  for stage in config_limits.STAGES
  for backbone in BACKBONES
]


# What a block's norms multiply with and add is learnt from the gradients of the
# weight after them and of its bias, which are added up.
NORM = re.compile(r"/blocks/\d+/norm[12]/")


def reduced(params):
  """How many numbers of all gradients the devices add up."""
  leaves = jax.tree_util.tree_flatten_with_path(params)[0]
  shapes = {partitioning.path_name(path): leaf.shape for path, leaf in leaves}
  return sum(reduced_of(name, shapes) for name in shapes)


def reduced_of(name, shapes):
  shape = shapes[name]
  if NORM.search(name):
    # T2T-ViT's queries, keys and values have no bias: what the norm adds to
    # each of them is as good as one.
    bias = name.replace("norm1/bias", "attn/qkv/bias")
    return 0 if bias in shapes or bias == name else 3 * math.prod(shape)
  if "relative_position_bias_table" not in name:
    return math.prod(shape)
  # Swin's biases, for every pair of a window: before they become those of the
  # table, of (2 w - 1)² rows.
  rows, num_heads = shape
  return ((math.isqrt(rows) + 1) // 2) ** 4 * num_heads


def test_every_config_is_among_them():
  assert [spec.split(":")[0] for spec in SOME] == CONFIGS


@pytest.mark.long
@pytest.mark.parametrize(
  "spec",
  [
    *SOME,
    *(
      pytest.param(spec, marks=pytest.mark.slow)
      for spec in ALL
      if spec not in SOME
    ),
  ],
)
def test_a_data_parallel_step_reduces_gradients_and_metrics_alone(spec):
  stage = small(spec)
  gradients = reduced(stage.state_shapes.params)
  every = exchanged(stage)
  assert {(one.kind, one.devices, one.in_step) for one in every} == {
    ("all-reduce", 8, True)
  }
  elements = sum(one.times * one.elements for one in every)
  assert gradients < elements <= gradients + METRICS
