"""TPU chips and slices of them, as Google's documentation has them."""

import pytest

from relvit_jax.analysis import chips


@pytest.mark.parametrize(
  ("name", "size", "hosts"),
  [
    ("v5e:16x16", 256, 64),
    ("v5e:2x4", 8, 1),
    ("v5e:4x4", 16, 4),
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


@pytest.mark.parametrize(
  ("name", "share"),
  [
    ("v5e:16x16", 1),
    ("v5e:2x2", 1 / 2),  # One neighbour along each axis, where there are two.
    ("v5e:2x4", 3 / 4),
    ("v5e:1x1", 0),
    ("v5p:2x2x4", 2 / 3),
  ],
)
def test_links_without_a_neighbour_are_of_no_use(name, share):
  where = chips.parse(name)
  assert where.links == pytest.approx(share * where.chip.links)


@pytest.mark.parametrize(
  "name",
  ["v5e", "v5e:16", "v5e:4x4x4", "v4:4x4", "v7:4x4", "v5e:0x4", "H100:8"],
)
def test_what_is_no_slice_is_refused_with_those_that_are(name):
  with pytest.raises(ValueError, match=r"such as v4:4x4x4, v5e:4x4, v5p:4x4x4"):
    chips.parse(name)


def test_a_slice_is_no_larger_than_a_pod():
  with pytest.raises(ValueError, match="1,024 chips; a slice has at most 256"):
    chips.parse("v5e:32x32")
