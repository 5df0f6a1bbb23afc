"""Splits as folders of image files, one a class: what the config folder reads.

With it the digits become own images to try things on, without a network.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

from PIL import Image

from relvit_jax.data.splits import Split


def write(splits: Mapping[str, Split], folder: str | os.PathLike[str]) -> None:
  """Writes FOLDER/PART/CLASS/NUMBER.png of every image.

  Args:
    splits: by the name of the part. Images without a label lie in PART itself.
    folder: made if need be; files of the same names are overwritten.
  """
  for part, split in splits.items():
    top = pathlib.Path(folder) / part
    for name in ("", *split.class_names):
      (top / name).mkdir(parents=True, exist_ok=True)
    pairs = zip(split.images, split.labels.tolist(), strict=True)
    for number, (image, label) in enumerate(pairs):
      name = split.class_names[label] if label >= 0 else ""
      Image.fromarray(image).save(top / name / f"{number:05}.png")
