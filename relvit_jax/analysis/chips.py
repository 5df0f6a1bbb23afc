"""TPU chips by their published rates, and slices of them by their shape."""

from __future__ import annotations

import math
import re
from typing import NamedTuple


class Chip(NamedTuple):
  """What its makers say a chip can do at most.

  Attributes:
    flops: bfloat16 products, operations a second.
    memory: bytes, that the compiler may use.
    bandwidth: to and from that memory, bytes a second.
    links: to all neighbours together, bytes a second each way.
    host: the shape of the chips of one host.
    most: chips of a slice.
  """

  flops: float
  memory: float
  bandwidth: float
  links: float
  host: tuple[int, ...]
  most: int


_GIB = 2**30
# docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, read in November 2026. Their
# newer pages give the links both ways together, which is twice of this. Memory
# is what libtpu 0.0.42.1 says is available, of 32, 16, 95 and 32 GB.
CHIPS = {
  "v4": Chip(275e12, 30.75 * _GIB, 1228e9, 300e9, (2, 2, 1), 4096),
  "v5e": Chip(197e12, 15.75 * _GIB, 819e9, 200e9, (2, 2), 256),
  "v5p": Chip(459e12, 95.74 * _GIB, 2765e9, 600e9, (2, 2, 1), 6144),
  "v6e": Chip(918e12, 31.25 * _GIB, 1638e9, 400e9, (2, 2), 256),
}
# These are one machine with eight chips; larger slices have four on each.
_ONE_HOST = ("v5e:2x4", "v6e:2x4")
_SLICE = re.compile(r"(\w+):(\d+(?:x\d+)*)")


class Slice(NamedTuple):
  """Chips that are rented together.

  Attributes:
    name: such as v5e:16x16.
    chip: what each of them is.
    shape: how many along each axis.
  """

  name: str
  chip: Chip
  shape: tuple[int, ...]

  @property
  def size(self) -> int:
    """How many chips."""
    return math.prod(self.shape)

  @property
  def host(self) -> tuple[int, ...]:
    """The shape of the chips of one host: all, where there are fewer."""
    if self.name in _ONE_HOST:
      return self.shape
    return tuple(map(min, self.chip.host, self.shape))

  @property
  def hosts(self) -> int:
    """How many machines the chips belong to."""
    return self.size // math.prod(self.host)

  @property
  def links(self) -> float:
    """Of a chip to its neighbours in the slice, bytes a second each way.

    Of the two links along an axis none is of use where the axis has one chip,
    and one where it has two.
    """
    used = sum(min(2, length - 1) for length in self.shape)
    return self.chip.links * used / (2 * len(self.shape))


def parse(name: str) -> Slice:
  """The slice of a name.

  Args:
    name: such as v5e:16x16 or v4:4x4x4.

  Raises:
    ValueError: says which there are.
  """
  found = _SLICE.fullmatch(name)
  chip = CHIPS.get(found[1]) if found else None
  shape = tuple(map(int, found[2].split("x"))) if found else ()
  if chip is None or len(shape) != len(chip.host) or not math.prod(shape):
    examples = ", ".join(
      f"{known}:{'x'.join('4' * len(one.host))}" for known, one in CHIPS.items()
    )
    raise ValueError(
      f"topology={name!r} must be a kind of chip and the shape of a slice, "
      f"such as {examples}"
    )
  if math.prod(shape) > chip.most:
    raise ValueError(
      f"topology={name!r} has {math.prod(shape):,} chips; a slice has at most "
      f"{chip.most:,}"
    )
  return Slice(name, chip, shape)
