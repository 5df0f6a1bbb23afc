"""TPU chips and slices of them, as Google's documentation has them."""

import pytest

from relvit_jax.analysis import chips


@pytest.mark.parametrize(
  ("name", "size", "hosts"),
  [
    ("v5e:16x16", 256, 64),
    ("v5e:2x4", 8, 2),
    ("v5e:1x1", 1, 1),
    ("v6e:16x16", 256, 64),
    ("v4:4x4x4", 64, 16),
    ("v5p:8x8x4", 256, 64),
  ],
)
def test_a_slice_has_chips_and_hosts(name, size, hosts):
  where = chips.parse(name)
  assert (where.name, where.size, where.hosts) == (name, size, hosts)
  assert where.chip == chips.CHIPS[name.split(":")[0]]


def test_links_of_a_whole_pod_are_what_is_published():
  """All-reduce bandwidth of a pod: 51.2 and 102.4 TB/s."""
  assert 256 * chips.CHIPS["v5e"].links == 51.2e12
  assert 256 * chips.CHIPS["v6e"].links == 102.4e12


@pytest.mark.parametrize(
  "name",
  ["v5e", "v5e:16", "v5e:4x4x4", "v4:4x4", "v7:4x4", "v5e:0x4", "H100:8"],
)
def test_what_is_no_slice_is_refused_with_those_that_are(name):
  with pytest.raises(ValueError, match=r"such as v4:4x4x4, v5e:4x4, v5p:4x4x4"):
    chips.parse(name)
