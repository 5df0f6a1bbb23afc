"""Backbones by name and the sizes that a name stands for; imports nothing."""

from __future__ import annotations

from typing import Any

TASKS = ("relation", "distance", "angle", "position", "label")

SIZES: dict[str, dict[str, Any]] = {
  "vit_tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
  "vit_small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
  "vit_base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
}

# A family's name stands for the variant that the paper uses.
FAMILIES = {"vit": "vit_small"}


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
