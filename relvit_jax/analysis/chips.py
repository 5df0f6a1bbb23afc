"""TPU chips by their published rates, and slices of them by their shape."""

from __future__ import annotations

import math
import re
from typing import NamedTuple


class Chip(NamedTuple):
  """What its makers say a chip can do at most.

  Attributes:
    flops: bfloat16 products, operations a second.
    memory: bytes.
    bandwidth: to and from that memory, bytes a second.
    links: to all neighbours together, bytes a second each way.
    host: the shape of the chips of one host.
    axes: of a slice's shape.
  """

  flops: float
  memory: float
  bandwidth: float
  links: float
  host: tuple[int, int, int]
  axes: int


_GIB = 2**30
# docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, read in November 2026. Their
# newer pages give the links both ways together, which is twice of this; what
# they call GB of memory is GiB by XLA's count.
CHIPS = {
  "v4": Chip(275e12, 32 * _GIB, 1228e9, 300e9, (2, 2, 1), 3),
  "v5e": Chip(197e12, 16 * _GIB, 819e9, 200e9, (2, 2, 1), 2),
  "v5p": Chip(459e12, 95 * _GIB, 2765e9, 600e9, (2, 2, 1), 3),
  "v6e": Chip(918e12, 32 * _GIB, 1638e9, 400e9, (2, 2, 1), 2),
}
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
    whole = (*self.shape, 1)[:3]
    return tuple(map(min, self.chip.host, whole))

  @property
  def hosts(self) -> int:
    """How many machines the chips belong to."""
    return self.size // math.prod(self.host)


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
  if chip is None or len(shape) != chip.axes or not math.prod(shape):
    examples = ", ".join(
      f"{known}:{'x'.join('4' * one.axes)}" for known, one in CHIPS.items()
    )
    raise ValueError(
      f"topology={name!r} must be a kind of chip and the shape of a slice, "
      f"such as {examples}"
    )
  return Slice(name, chip, shape)
