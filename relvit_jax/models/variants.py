"""Backbones by name and the sizes that a name stands for; imports nothing."""

from __future__ import annotations

from typing import Any

TASKS = ("relation", "distance", "angle", "position", "label")

SIZES: dict[str, dict[str, Any]] = {
  "vit_tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
  "vit_small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
  "vit_base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
  **{
    f"t2t_vit_{name}": {
      "embed_dim": width,
      "depth": depth,
      "num_heads": width // 64,
      "mlp_ratio": ratio,
      "tokens_type": tokens_type,
    }
    for name, width, depth, ratio, tokens_type in (
      ("7", 256, 7, 2.0, "performer"),
      ("10", 256, 10, 2.0, "performer"),
      ("12", 256, 12, 2.0, "performer"),
      ("14", 384, 14, 3.0, "performer"),
      ("19", 448, 19, 3.0, "performer"),
      ("24", 512, 24, 3.0, "performer"),
      ("t_14", 384, 14, 3.0, "transformer"),
      ("t_19", 448, 19, 3.0, "transformer"),
      ("t_24", 512, 24, 3.0, "transformer"),
    )
  },
}

# A family's name stands for the variant that the paper uses.
FAMILIES = {"vit": "vit_small", "t2t_vit": "t2t_vit_14"}


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
  """The key of `FAMILIES` that a backbone's name begins with.

  Raises:
    ValueError: there is no such backbone.
  """
  sizes_of(backbone)
  return next(name for name in FAMILIES if backbone.startswith(name))
