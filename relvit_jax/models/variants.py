"""Backbones by name and the sizes that a name stands for; imports nothing."""

from __future__ import annotations

from typing import Any

TASKS = ("relation", "distance", "angle", "position", "label")


def _swin(
  embed_dim: int, depth: tuple[int, ...], num_heads: tuple[int, ...]
) -> dict[str, Any]:
  """Depth and heads have a number for each stage, windows the paper's size."""
  return {
    "embed_dim": embed_dim,
    "depth": depth,
    "num_heads": num_heads,
    "window_size": 7,
  }


SIZES: dict[str, dict[str, Any]] = {
  "vit_tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
  "vit_small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
  "vit_base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
  "swin_tiny": _swin(96, (2, 2, 6, 2), (3, 6, 12, 24)),
  "swin_small": _swin(96, (2, 2, 18, 2), (3, 6, 12, 24)),
  "swin_base": _swin(128, (2, 2, 18, 2), (4, 8, 16, 32)),
}

# A family's name stands for the variant that the paper uses.
FAMILIES = {"vit": "vit_small", "swin": "swin_tiny"}


def sizes_of(backbone: str) -> dict[str, Any]:
  """The sizes of a variant or of a family's own one.

  Raises:
    ValueError: there is no such backbone, with the names that there are.
  """
  variant = FAMILIES.get(backbone, backbone)
  if variant not in SIZES:
    raise ValueError(
      f"backbone={backbone!r} does not exist; there are "
      f"{', '.join([*FAMILIES, *SIZES])}"
    )
  return SIZES[variant]


def family_of(backbone: str) -> str:
  """The family that a variant or family's name belongs to: swin of swin_tiny.

  Raises:
    ValueError: as `sizes_of`.
  """
  sizes_of(backbone)
  return next(family for family in FAMILIES if backbone.startswith(family))


def patch_growth(backbone: str) -> int:
  """How many of its first patches, a side, make one that the heads see.

  8 for Swin, whose three mergings halve the grid; 1 for a ViT.
  """
  depth = sizes_of(backbone)["depth"]
  return 2 ** (len(depth) - 1) if isinstance(depth, tuple) else 1
