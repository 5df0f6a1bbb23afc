"""What the positional embeddings have learned about the grid."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def position_similarity(
  pos_embed: Float[np.ndarray, "1 T D"], grid_size: tuple[int, int]
) -> Float[np.ndarray, "H W H W"]:
  """Cosine similarity of the embeddings of every two places of the grid.

  Args:
    pos_embed: one embedding a token; that of a class token, which comes
      first, is left out.
    grid_size: (rows, columns).

  Raises:
    ValueError: the number of tokens does not belong to the grid.
  """
  height, width = grid_size
  _, tokens, _ = pos_embed.shape
  if tokens - height * width not in (0, 1):
    raise ValueError(
      f"pos_embed has {tokens} tokens; a {height}×{width} grid has "
      f"{height * width}, or one more with a class token"
    )
  places = np.asarray(pos_embed[0, -height * width :], np.float64)
  places /= np.linalg.norm(places, axis=1, keepdims=True)
  return (places @ places.T).reshape(height, width, height, width)
