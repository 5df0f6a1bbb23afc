"""What all tests share: eight virtual devices, strict JAX, the references."""

import os
import pathlib

# Before anything imports JAX: device counts are read once.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"

from jaxtyping import install_import_hook

# Every annotated shape of the package is checked while the tests run.
install_import_hook("relvit_jax", "beartype.beartype")

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def reference():
  """Loads an archive of what the official code computed, or skips."""

  def load(name: str) -> dict[str, np.ndarray]:
    path = SHARED / "reference" / f"{name}.npz"
    if not path.exists():
      pytest.skip(f"the reference archive {name} is not beside the clone")
    with np.load(path, allow_pickle=False) as archive:
      return dict(archive)

  return load
