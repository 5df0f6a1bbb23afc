"""Numbers as text, and the README's numbers as the files have them."""

import pathlib

import pytest

from relvit_jax import cli
from relvit_jax.analysis import benchmark_table

ROOT = pathlib.Path(__file__).resolve().parents[1]
KEPT = ROOT / "relvit_jax" / "analysis" / "benchmarks"


def row(median, **others):
  return {
    "median": median,
    "lower_quartile": 0.9 * median,
    "upper_quartile": 1.2 * median,
    "repetitions": 5,
    "steps_per_call": 4,
    "images_per_second": 32 / median,
    "share_of_step": median / 1.5,
    "share_of_rate": None,
    "share_of_bound": 0.25,
    "planned_bytes": 1_530_000_000,
  } | others


REPORT = {
  "machine": {
    "device": "AMD EPYC",
    "platform": "cpu",
    "devices": 1,
    "cores": 2,
    "python": "3.11.7",
    "jax": "0.10.2",
    "date": "2026-11-23",
    "products": {
      "float32": {"rate": 170e9, "quartiles": [160e9, 175e9], "side": 1024}
    },
    "copies": {"bandwidth": 44e9, "quartiles": [40e9, 45e9]},
  },
  "source": "random pixels, 20,000 × 32×32",
  "result": {
    "config": {
      "stage": "pretrain",
      "tasks": ["relation", "position"],
      "backbone": "vit_small",
      "image_size": 32,
      "patch_size": 4,
      "patches": [8, 8],
      "batch_size": 32,
      "devices": 1,
      "feed": "resident",
    },
    "parameters": 21_456_789,
    "dtype": "float32",
    "flops_per_image": 8_650_000_000,
    "parts": {
      "step": row(1.5, share_of_rate=0.62),
      "augmentation": row(0.0028, share_of_bound=0.004),
      "heads": row(0.06),
      "optimizer": row(0.05),
      "end_to_end": row(1.52, share_of_rate=0.61),
      "pytorch": row(2.0, planned_bytes=None),
    },
    "products_rate": 170e9,
    "products_quartiles": [160e9, 175e9],
    "profile": None,
    "compilations": {"all": 25, "while_measuring": 0},
    "peak_bytes": {"process": 2_100_000_000, "device": None},
    "rivals": {
      "pytorch": {
        "torch": "2.13.0",
        "transformers": "5.23.0",
        "peak_bytes": 1_900_000_000,
      }
    },
  },
}

TABLE = """\
AMD EPYC, 2 cores; Python 3.11.7, JAX 0.10.2; 2026-11-23
products: 170 GFLOP/s in float32, of 1024×1024 (160–175)
copies: 44.0 GB/s, read and written (40.0–45.0)
pretrain: relation, position
vit_small: 21,456,789 trained parameters, float32
batches of 32, 32 pixels, 8×8 patches, 8.65 GFLOPs an image
resident feed of random pixels, 20,000 × 32×32

part                   ms       middle half  images/s  of step  of rate of bound    plan
step                 1500         1350–1800      21.3    100 %   62.0 %   25.0 %   1,530
augmentation        2.800       2.520–3.360    11,429    0.2 %        –    0.4 %   1,530
heads                60.0         54.0–72.0       533    4.0 %        –   25.0 %   1,530
optimizer            50.0         45.0–60.0       640    3.3 %        –   25.0 %   1,530
end_to_end           1520         1368–1824      21.1    101 %   61.0 %   25.0 %   1,530
pytorch              2000         1800–2400      16.0    133 %        –   25.0 %       –

products, in turn with the parts: 170 GFLOP/s (160–175)
25 compilations, 0 of them while measuring
peak memory with what all parts hold: process 2,100 MB
pytorch: PyTorch 2.13.0, Transformers 5.23.0; peak memory 1,900 MB

ms       a step of the batch"""  # noqa: E501


def test_the_table():
  shown = benchmark_table.table(REPORT)
  assert shown.startswith(TABLE)
  assert max(map(len, shown.splitlines())) <= 88
  for name in REPORT["result"]["parts"]:
    assert f"\n{name} " in shown.split("arguments included")[1]


@pytest.mark.parametrize(
  ("device", "platform", "count", "told"),
  [
    ("NVIDIA H200", "gpu", 1, "NVIDIA H200, 2 cores; "),
    ("NVIDIA H200", "gpu", 8, "8 × NVIDIA H200, 2 cores; "),
    ("AMD EPYC", "cpu", 2, "AMD EPYC, 2 cores as 2 devices; "),
  ],
)
def test_devices_are_many_where_a_cpu_is_divided(device, platform, count, told):
  here = {"device": device, "platform": platform, "devices": count}
  shown = benchmark_table.table(REPORT | {"machine": REPORT["machine"] | here})
  assert shown.startswith(told)


def test_a_profile_follows_the_legend():
  row = {"scope": "mlp", "kind": "products", "seconds": 1.0, "flops": 170e9}
  profile = {"steps": 4, "seconds": 1.5, "rows": [row]}
  result = REPORT["result"] | {"profile": profile}
  shown = benchmark_table.table(REPORT | {"result": result}).splitlines()
  end = "mlp, products                 1000.00   66.7 %    100 %    0.0 %"
  assert end in shown
  assert max(map(len, shown)) <= 88


def test_without_pytorch_nothing_is_said_of_it():
  parts = {"step": REPORT["result"]["parts"]["step"]}
  result = REPORT["result"] | {"parts": parts, "rivals": {}}
  shown = benchmark_table.table(REPORT | {"result": result})
  assert "pytorch" not in shown.lower()


MARKDOWN = """\
| model | batch | device | step, ms | images/s | end to end | PyTorch, eager / \
compiled | of rate | of bound | augmentation | heads | optimiser |
|---|---|---|---|---|---|---|---|---|---|---|---|
| vit_small 32/4, 21.5 M, pretrain | 32 | AMD EPYC, 2 cores; float32; \
2026-11-23 | 1500 (1350–1800) | 21.3 | 21.1 | 16.0 / – | 62.0 % | \
25.0 % | 0.2 % | 4.0 % | 3.3 % |
"""


def test_the_readme_s_table():
  assert benchmark_table.markdown([REPORT]) == MARKDOWN


def test_a_part_that_was_not_measured_is_a_dash():
  parts = {"step": REPORT["result"]["parts"]["step"]}
  result = REPORT["result"] | {"parts": parts}
  row = benchmark_table.markdown([REPORT | {"result": result}]).splitlines()[-1]
  assert row.endswith("| 21.3 | – | – / – | 62.0 % | 25.0 % | – | – | – |")


def test_the_readme_has_the_numbers_of_the_files(capsys):
  readme = (ROOT / "README.md").read_text(encoding="utf-8")
  section = readme.split("\n## Speed\n")[1].split("\n## ")[0]
  files = sorted(KEPT.glob("*.json"))
  assert files
  assert cli.main(["benchmark", "--readme", *map(str, files)]) == 0
  tables = capsys.readouterr().out.split("\n\n")
  assert [table for table in tables if table.strip() not in section] == []


def test_the_readme_s_profile():
  row = {"scope": "mlp", "kind": "products", "seconds": 1.0, "flops": 170e9}
  profile = {"steps": 4, "seconds": 1.5, "rows": [row]}
  result = REPORT["result"] | {"profile": profile}
  assert benchmark_table.markdown([REPORT | {"result": result}]) == (
    MARKDOWN
    + """
Where a step of the vit_small goes on AMD EPYC, and what of it its products
would not need at the measured rate:

|  | ms | of step | of rate | lost |
| --- | --- | --- | --- | --- |
| mlp, products | 1000.00 | 66.7 % | 100 % | 0.0 % |
| idle, or side by side | 500.00 | 33.3 % | – | 33.3 % |
| all | 1500.00 | 100.0 % | 67 % | 33.3 % |
"""
  )
