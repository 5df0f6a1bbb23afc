"""Training compiled for TPUs that are not there; the compiler is an extra."""

import pytest

from relvit_jax.analysis import ahead, chips
from relvit_jax.training import partitioning

needs_compiler = pytest.mark.skipif(
  ahead.missing(), reason="libtpu is not installed: pip install jax[tpu]"
)


@needs_compiler
@pytest.mark.parametrize(
  ("name", "count"),
  [
    ("v5e:2x2", 4),
    ("v5e:2x4", 8),
    ("v5e:1x1", 1),
    ("v4:2x2x1", 4),
    ("v5p:2x2x1", 4),
  ],
)
def test_a_slice_has_a_device_for_every_chip(name, count):
  found = ahead.devices(chips.parse(name))
  assert len(found) == count
  assert {device.platform for device in found} == {"tpu"}


@needs_compiler
@pytest.mark.parametrize("fsdp", [1, 2, 4, 8, 32])
@pytest.mark.parametrize("name", ["v6e:16x16", "v5e:4x8", "v5p:4x4x4"])
def test_every_mesh_has_its_place_on_a_slice(name, fsdp):
  mesh = partitioning.make_mesh(fsdp, ahead.devices(chips.parse(name)))
  assert mesh.shape["fsdp"] == fsdp
  assert len(set(mesh.devices.flat)) == mesh.size == chips.parse(name).size


@needs_compiler
def test_a_shape_that_hosts_do_not_fill_is_refused():
  message = "topology='v5e:3x3' cannot be had: .*; it is made of hosts of 2×2"
  with pytest.raises(ValueError, match=message):
    ahead.devices(chips.parse("v5e:3x3"))


@pytest.mark.parametrize(
  ("said", "needed", "available"),
  [
    (
      "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
      "for HLO temporaries (65.54G) exceeds available HBM (15.75G).",
      65.54,
      15.75,
    ),
    (
      "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory "
      "in memory space hbm. Used 512.00M of 0.25G hbm. Exceeded by 256.00M",
      0.5,
      0.25,
    ),
  ],
)
def test_what_the_compiler_says_of_memory_becomes_numbers(
  said, needed, available
):
  found = ahead.TooLargeError.of_message(said)
  assert (found.needed, found.available) == (needed * 2**30, available * 2**30)
  assert str(found) == (
    f"a chip would need {needed:.1f} GiB, and has {available:.2f}"
  )


def test_another_error_is_left_as_it_is():
  for said in (
    "INTERNAL: 1.00G of 2.00G hbm",
    # Of a core, whose memory does not grow with the batch.
    "RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem: 17.5M, 16M",
  ):
    assert ahead.TooLargeError.of_message(said) is None
