"""Training steps compiled for TPUs; the compiler is an extra."""

import numpy as np
import pytest

from relvit_jax import config
from relvit_jax.analysis import ahead, benchmark
from relvit_jax.training import partitioning
from relvit_jax.training.stage import Stage

pytestmark = pytest.mark.skipif(
  ahead.missing(), reason="libtpu is not installed: pip install jax[tpu]"
)


def stage(devices, *overrides):
  settings = config.load("cifar10:pretrain", overrides)
  colours = ((0.5,) * 3, (0.25,) * 3)
  mesh = partitioning.make_mesh(devices=devices)
  return Stage(settings, benchmark.synthetic(settings), mesh, colours)


SMALL = ("model.depth=1", "batch_size=64", "tasks=relation,position")


def test_a_step_takes_the_kernel_and_exchanges_gradients_alone():
  program = ahead.compile_step(stage(ahead.devices("v5e:2x2"), *SMALL))
  text = program.as_text()
  assert "tpu_custom_call" in text
  for collective in ("all-gather(", "all-to-all(", "collective-permute("):
    assert collective not in text
  assert 1 <= text.count("all-reduce(") + text.count("all-reduce-start(") <= 3


@pytest.mark.parametrize(
  ("topology", "count", "message"),
  [
    ("v99:2x2", None, "topology='v99:2x2' cannot be had"),
    ("v5e:2x2", 5, "chips=5 must be from 1 to the 4 of v5e:2x2"),
  ],
)
def test_chips_that_are_not_there_are_refused(topology, count, message):
  with pytest.raises(ValueError, match=message):
    ahead.devices(topology, count)


@pytest.mark.slow
def test_an_image_of_vit_small_moves_little():
  """The plain step of the same model: 54 MB in main memory, 231 in all."""
  found = ahead.report(
    stage(ahead.devices("v5e:2x2", 1), "tasks=relation,distance,angle,position")
  )
  assert found["images"] == 256
  outside = sum(found["main_memory_bytes"].values()) / 256
  assert 15e6 < outside < 30e6
  assert found["accessed_bytes"] / 256 < 110e6
  np.testing.assert_allclose(found["flops"] / 256, 8.9e9, rtol=0.05)
