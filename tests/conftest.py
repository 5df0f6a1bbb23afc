"""What all tests share: eight virtual devices, strict JAX, the references."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile

# Before anything imports JAX: device counts are read once.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
# A program that several tests or their processes run is compiled once.
_CACHE = tempfile.mkdtemp(prefix="relvit-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"

from jaxtyping import install_import_hook

# Every annotated shape of the package is checked while the tests run.
install_import_hook("relvit_jax", "beartype.beartype")

import jax
import numpy as np
import PIL.Image
import pytest
from real_images import (  # noqa: F401
  SHARED,
  cifar_sample,
  tiny_imagenet_sample,
)
from tiny_runs import RANDOM, typed

from relvit_jax import cli

jax.config.update("jax_numpy_rank_promotion", "raise")

REFERENCE = SHARED / "reference"


@pytest.fixture
def run_on_a_gpu():
  """Runs a file as a program that sees the GPU, which tests do not."""

  def run(file: str) -> None:
    if shutil.which("nvidia-smi") is None:
      pytest.skip("there is no NVIDIA GPU here")
    here = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    subprocess.run([sys.executable, file], env=here, check=True)

  return run


@pytest.fixture(scope="session")
def reference():
  """Loads an archive of what the official code computed, or skips."""

  def load(name: str) -> dict[str, np.ndarray]:
    path = REFERENCE / f"{name}.npz"
    if not path.exists():
      pytest.skip(f"the reference archive {name} is not beside the clone")
    with np.load(path, allow_pickle=False) as archive:
      return dict(archive)

  return load


@pytest.fixture(scope="session")
def pretrain_run(tmp_path_factory):
  """The work directory of a tiny pre-training on the digits."""
  workdir = tmp_path_factory.mktemp("pretrain") / "run"
  assert cli.main(typed("digits:pretrain", workdir)) == 0
  return workdir


@pytest.fixture(scope="session")
def joint_run(tmp_path_factory):
  """That of a joint training with all that is random; do not write to it."""
  workdir = tmp_path_factory.mktemp("joint") / "run"
  assert cli.main(typed("digits:joint", workdir, **RANDOM)) == 0
  return workdir


@pytest.fixture
def folder(tmp_path):
  """Three images of no class, of 2×2 pixels."""
  root = tmp_path / "mine"
  root.mkdir()
  for i in range(3):
    pixels = np.full((2, 2, 3), i, np.uint8)
    PIL.Image.fromarray(pixels).save(root / f"{i}.png")
  return root
