"""A plan in words."""

import json
import pathlib

import pytest

from relvit_jax.analysis import chips, plan_table

PLAN = {
  "config": "cifar10:pretrain",
  "topology": "v5e:4x4",
  "chips": 16,
  "hosts": 4,
  "chip": chips.CHIPS["v5e"]._asdict(),
  "mesh": {"data": 8, "fsdp": 2},
  "batch_size": 4_096,
  "feed": "resident: 176 MiB of pixels lie on the device",
  "is_resident": True,
  "steps_per_dispatch": 50,
  "memory": {
    "parameters": 50e6,
    "optimizer": 100e6,
    "average": 0,
    "fixed": 0,
    "data": 184.5e6,
    "padding": 0,
    "activations": 3_000e6,
    "code": 20e6,
    "peak": 3_400e6,
  },
  "parameters": 21_628_480,
  "flops": 2_214e9,
  "main_memory_bytes": 6_552e6,
  "kernel_bytes": 14_745e6,
  "sent_bytes": 200e6,
  "links": 200e9,
  "unknown_loops": 0,
  "collectives": [
    {"kind": "all-reduce", "elements": 20, "size": 40, "devices": 16,
     "times": 2, "in_step": True},
    {"kind": "all-gather", "elements": 1_000_000, "size": 4_000_000,
     "devices": 2, "times": 3, "in_step": True},
    {"kind": "all-reduce", "elements": 5, "size": 20, "devices": 16,
     "times": 1, "in_step": True},
  ],
  "seconds": {
    "products": 0.01124,
    "memory": 0.008,
    "exchange": 0.001,
    "step": 0.01124,
  },
  "bound": "products",
  "compiler": {"flops": 1.0, "bytes_accessed": 1.0},
  "images": 45_000,
  "steps": {"epoch": 11, "run": 1_100},
}  # fmt: skip


def test_a_plan_is_read_on_a_terminal():
  assert (
    "\n".join(plan_table.lines(PLAN))
    == """\
cifar10:pretrain on v5e:4x4: 16 chips, 4 hosts, mesh 8 × 2 (data × fsdp); \
4,096 images a step, 256 a chip
resident: 176 MiB of pixels lie on the device; 50 steps a dispatch

memory of a chip            MB
  parameters                50.0   21,628,480
  optimiser                100.0
  images                   184.5
  activations            3,000.0
  program                   20.0
  all at the peak        3,400.0   20.1% of 15.75 GiB

a step of a chip          amount    at the rate of    least ms
  products        2,214.00 GFLOP       197 TFLOP/s      11.240   ← the bound
  main memory         6,552.0 MB          819 GB/s       8.000
  exchange              200.0 MB          200 GB/s       1.000
  kernels read and write 14,745.0 MB, in main memory and the core's own
  a step: 3 × all-reduce of 16 chips, 45 numbers, 0.0001 MB
  a step: 3 × all-gather of 2 chips, 3,000,000 numbers, 12 MB

at least 11.2 ms a step, 364,413 images/s: 124 ms for an epoch of 11 steps, \
12.4 s for the run of 1,100

The least time is the largest of the three, each at the published rate of the
chip, all its links in the slice at work at once. A real step takes longer, most
of all where a chip has few images; what evaluation, checkpoints and start-up
take comes on top."""
  )


def test_a_feed_that_has_to_decode_is_told_how_fast():
  said = plan_table.lines(PLAN | {"is_resident": False})
  assert (
    "the feed must keep up: a host would have to decode 91,103 images/s" in said
  )


def test_the_compilers_estimate_is_told_where_there_is_one():
  compiler = PLAN["compiler"] | {"seconds": 0.02}
  assert "  the compiler expects 20.000 ms" in plan_table.lines(
    PLAN | {"compiler": compiler}
  )


@pytest.mark.parametrize(
  ("seconds", "words"),
  [
    (0.0000123, "12.3 µs"),
    (0.1236, "124 ms"),
    (59.4, "59.4 s"),
    (119.9, "120 s"),
    (120, "2 min"),
    (7_000, "117 min"),
    (9_000, "2.5 h"),
  ],
)
def test_a_duration_has_three_digits(seconds, words):
  assert plan_table.duration(seconds) == words


def test_a_sweep_is_a_table():
  fits = {"batch_size": 4_096, "fsdp": 2, "plan": PLAN}
  refused = {"batch_size": 65_536, "fsdp": 2, "refused": "a chip would need …"}
  assert (
    "\n".join(
      [plan_table.SWEEP_HEADER, *map(plan_table.sweep_line, (fits, refused))]
    )
    == """\
batch_size  mesh.fsdp  peak MB  least ms    images/s  bound
     4,096          2    3,400    11.240     364,413  products
    65,536          2  a chip would need …"""
  )


def test_the_readme_has_a_row_for_a_plan():
  *_, row = plan_table.markdown([PLAN]).splitlines()
  assert row == (
    "| cifar10:pretrain | v5e:4x4 | 4,096, 256 | 150 | 3,400 | 2,214.0 | 6,552 "
    "| 200 | 11.2 ms | products | 124 ms | 12.4 s |"
  )


def test_what_is_not_counted_is_told():
  said = plan_table.lines(PLAN | {"unknown_loops": 1})
  assert "  1 loop of unknown length counted once" in said


def test_of_an_exchange_between_pairs_the_number_of_chips_is_left_out():
  one = PLAN["collectives"][0] | {"kind": "collective-permute", "devices": 0}
  assert plan_table.exchanges([one]) == [
    "a step: 2 × collective-permute, 40 numbers, 8e-05 MB"
  ]


def test_the_readme_has_the_plans_that_are_kept():
  root = pathlib.Path(__file__).resolve().parents[1]
  files = sorted((root / "relvit_jax/analysis/plans").glob("*.json"))
  plans = [json.loads(path.read_text(encoding="utf-8")) for path in files]
  assert {(one["config"], one["topology"]) for one in plans} == {
    (f"{name}:pretrain", f"{kind}:16x16")
    for kind in ("v5e", "v6e")
    for name in (
      "cifar10",
      "cifar100",
      "svhn",
      "flowers102",
      "tiny_imagenet",
      "imagenet100",
    )
  }
  readme = (root / "README.md").read_text(encoding="utf-8")
  assert plan_table.markdown(plans) in readme


def test_the_readme_says_what_a_chip_moves_for_an_image():
  root = pathlib.Path(__file__).resolve().parents[1]
  kept = root / "relvit_jax/analysis/plans/one_chip/cifar10_v5e.json"
  plan = json.loads(kept.read_text(encoding="utf-8"))
  readme = (root / "README.md").read_text(encoding="utf-8")
  for moved, said in (
    (plan["kernel_bytes"], "read and write {:.1f} MB an image"),
    (plan["main_memory_bytes"], "own memory: {:.1f} MB"),
    (plan["compiler"]["bytes_accessed"], "twice, is {:.1f} ("),
  ):
    assert said.format(moved / 1e6 / plan["batch_size"]) in readme
