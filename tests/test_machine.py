"""What the machine is and does; its speed itself cannot be tested."""

import datetime
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax.analysis import machine


def test_device_versions_and_date():
  told = machine.describe()
  assert told["platform"] == "cpu"
  assert told["devices"] == 8
  assert told["cores"] >= 1
  assert {"jax", "jaxlib", "flax", "optax", "numpy", "python"} < set(told)
  datetime.date.fromisoformat(told["date"])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_rate_is_the_best_of_the_sides(dtype):
  found = machine.matrix_rate(dtype, 0.05, sides=(64, 128))
  assert found["rate"] == max(found["by_side"].values()) > 1e6
  assert found["rate"] == found["by_side"][str(found["side"])]
  slow, fast = found["quartiles"]
  assert 0 < slow <= found["rate"] <= fast


def test_both_ways_of_a_copy_count():
  found = machine.copy_bandwidth(0.05, num_bytes=2**20)
  assert found["bytes"] == 2**20
  slow, fast = found["quartiles"]
  assert 1e6 < slow <= found["bandwidth"] <= fast


class _Device(NamedTuple):
  platform: str
  process_index: int
  id: int


@pytest.mark.parametrize(
  ("platform", "processes", "count"),
  [
    ("cpu", (0,), 1),
    ("cpu", (0, 0, 0, 0), 1),
    ("cpu", (0, 0, 1, 1), 2),
    ("gpu", (0, 0, 1, 1), 4),
    ("tpu", (0, 0, 0, 0), 4),
  ],
)
def test_cpu_devices_of_a_process_share_what_it_can(platform, processes, count):
  devices = [
    _Device(platform, process, i) for i, process in enumerate(processes)
  ]
  assert machine.count(devices) == count


def test_all_devices_of_this_process_are_one_machine():
  assert machine.count(jax.devices()) == 1


def test_the_peak_is_that_of_what_came_since():
  machine.forget_peak()
  before = machine.peak_resident_bytes()
  big = np.ones(2**24)  # 128 MiB, and touched.
  after = machine.peak_resident_bytes()
  assert after - before > 0.9 * big.nbytes
  assert machine.peak_device_bytes() is None
