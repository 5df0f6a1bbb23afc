"""When JAX is kept from starting libtpu."""

import pathlib
import subprocess
import sys

import pytest

from relvit_jax import accelerators

ONLY_CPU = {"JAX_PLATFORMS": "cpu"}


@pytest.mark.parametrize(
  ("given", "has_libtpu", "has_accelerator", "changed"),
  [
    ({}, True, False, ONLY_CPU),
    ({}, False, False, {}),
    ({}, True, True, {}),
    ({"JAX_PLATFORMS": ""}, True, False, {}),
    ({"JAX_PLATFORMS": "tpu,cpu"}, True, False, {}),
  ],
)
def test_where_it_would_only_be_in_the_way(
  given, has_libtpu, has_accelerator, changed
):
  found = accelerators.environment(given, has_libtpu, has_accelerator)
  assert found == changed


@pytest.mark.parametrize("name", ["nvidia0", "kfd", "dxg", "accel3", "vfio/0"])
def test_a_device_is_seen(tmp_path, monkeypatch, name):
  here = tuple(f"{tmp_path}{pattern}" for pattern in accelerators._DEVICES)
  monkeypatch.setattr(accelerators, "_DEVICES", here)
  assert not accelerators.are_there()
  device = pathlib.Path(f"{tmp_path}/dev/{name}")
  device.parent.mkdir(parents=True)
  device.touch()
  assert accelerators.are_there()


def test_a_command_leaves_it_out(tmp_path, monkeypatch):
  """`relvit` with a libtpu that must not be started, and no TPU."""
  (tmp_path / "libtpu.py").write_text("raise AssertionError('started')\n")
  monkeypatch.setenv("PYTHONPATH", str(tmp_path))
  monkeypatch.delenv("JAX_PLATFORMS")
  script = (
    "import sys\n"
    "from relvit_jax import accelerators, cli\n"
    "accelerators.are_there = lambda: False\n"
    "sys.argv = ['relvit', 'models', '--backbone', 'swin_tiny']\n"
    "assert cli.main() == 0\n"
    "import jax\n"
    "print(jax.default_backend(), jax.config.jax_platforms)\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=True
  )
  assert done.stdout.splitlines()[-1] == "cpu cpu"
