"""From a config to numbers, and the command that prints them."""

import json

import jax
import numpy as np
import pytest

from relvit_jax import cli, config
from relvit_jax.analysis import (
  benchmark,
  benchmark_sweep,
  machine,
  pair_scaling,
  parts,
  timing,
)
from relvit_jax.commands import benchmark_arguments
from relvit_jax.models import flops
from relvit_jax.training import partitioning
from relvit_jax.training.stage import Stage

HERE = {
  "device": "a device",
  "devices": 1,
  "platform": "cpu",
  "cores": 2,
  "python": "3.11.7",
  "jax": "0.10.2",
  "date": "2026-11-23",
  "products": {
    "float32": {
      "rate": 1e9,
      "quartiles": [0.9e9, 1.1e9],
      "side": 1024,
      "by_side": {"1024": 1e9},
    }
  },
  "copies": {"bandwidth": 1e8, "quartiles": [0.9e8, 1.1e8], "bytes": 2**28},
}


def stage_of(name="digits:pretrain", **keys):
  settings = config.load(name)
  settings.update_from_flattened_dict({"batch_size": 16} | keys)
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  return Stage(
    settings, benchmark.synthetic(settings), mesh, ((0.5,) * 3, (0.25,) * 3)
  )


class Scripted:
  """A part that pretends to take so long a step."""

  planned_bytes = 12_000_000

  def __init__(self, name, seconds, most=100, least=1):
    self.name, self._seconds = name, seconds
    self.most, self.least = most, least

  def clock(self, count):
    return lambda: self._seconds * count


def test_random_pixels_have_the_shape_of_the_data_set():
  split = benchmark.synthetic(config.load("cifar100:supervised"))
  assert split.image_shape == (32, 32, 3)
  assert len(split.class_names) == 100
  assert set(split.labels.tolist()) == set(range(100))
  large = benchmark.synthetic(config.load("flowers102:pretrain"))
  assert large.images.nbytes <= 2**27


@pytest.mark.parametrize(
  ("seconds", "most", "least", "count"),
  [
    # A quarter of the two seconds.
    (0.01, 100, 1, 50),
    (0.001, 100, 1, 100),
    # Four steps, however long they are; or as many as there may be.
    (10, 100, 1, 4),
    (10, 1, 1, 1),
    (10, 20, 20, 20),
  ],
)
def test_a_call_has_many_steps(seconds, most, least, count):
  part = Scripted("it", seconds, most, least)
  _, counts = benchmark.clocks_of([part], 2.0)
  assert counts == {"it": count}


def test_shares(monkeypatch):
  seconds = {"step": 0.5, "heads": 0.1, "feed": 0.01, "optimizer": 0.02}
  made = []

  class Maker:
    def __init__(self, stage):
      made.append(stage)

    def make(self, name):
      return Scripted(name, seconds[name])

  monkeypatch.setattr(parts, "Parts", Maker)
  # At 10⁹ operations a second.
  asked = []

  def products(dtype, side):
    asked.append((dtype, side))
    return lambda: 20 * 2 * side**3 / 1e9, 20

  monkeypatch.setattr(machine, "products", products)
  stage = stage_of()
  rival = Scripted("pytorch", 1.0)
  result = benchmark.measure(stage, HERE, tuple(seconds), 5, [rival])
  assert made == [stage]
  assert asked == [(np.float32, 1024)]
  assert result["products_rate"] == pytest.approx(1e9)
  assert result["products_quartiles"] == pytest.approx([1e9, 1e9])
  rows = result["parts"]
  assert list(rows) == [*seconds, "pytorch"]
  cost = flops.per_image(
    *("vit", 8, 2, ("relation", "position")),
    **{"embed_dim": 32, "depth": 2, "num_heads": 2},
  )
  step = rows["step"]
  assert (
    step["flops"] == 16 * cost.total.training == 16 * result["flops_per_image"]
  )
  assert step["share_of_rate"] == pytest.approx(step["flops"] / 0.5 / 1e9)
  assert step["images_per_second"] == pytest.approx(32)
  assert rows["heads"]["flops"] == 16 * sum(
    head.training for head in cost.heads.values()
  )
  assert rows["heads"]["share_of_step"] == pytest.approx(0.2)
  assert rows["pytorch"]["share_of_step"] == pytest.approx(2)
  assert rows["pytorch"]["flops"] == step["flops"]
  # 28 bytes a parameter; 3 · 8 · 8 bytes an image, read and written.
  adamw = 28 * result["parameters"] / 1e8
  assert rows["optimizer"]["share_of_bound"] == pytest.approx(adamw / 0.02)
  assert rows["feed"]["share_of_bound"] == pytest.approx(
    2 * 16 * 192 / 1e8 / 0.01
  )
  assert rows["feed"]["share_of_rate"] is None
  assert result["bound_seconds"] == pytest.approx(step["share_of_bound"] * 0.5)
  assert result["compilations"]["while_measuring"] == 0
  assert result["config"]["differences"]["batch_size"] == 16
  json.dumps(result)


@pytest.mark.long
def test_a_profile_is_of_the_step():
  result = benchmark.measure(stage_of(), HERE, ("step",), 0.05, profile=True)
  profile = result["profile"]
  flops = sum(row["flops"] for row in profile["rows"])
  assert flops / 16 == pytest.approx(result["flops_per_image"], rel=1e-9)
  scopes = {row["scope"] for row in profile["rows"]}
  assert {"attention", "mlp", "norm", "heads", "optimizer"} <= scopes


def test_names_are_those_of_the_parts():
  assert benchmark_arguments.PARTS == parts.NAMES
  assert tuple(benchmark_sweep.LABELS) == benchmark_arguments.SWEEPS


def run(capsys, *words):
  status = cli.main(["benchmark", *words])
  return status, capsys.readouterr()


@pytest.mark.long
def test_the_command(capsys, monkeypatch, tmp_path):
  monkeypatch.setattr(benchmark, "of_machine", lambda *given: HERE)
  file = tmp_path / "result.json"
  status, shown = run(
    capsys,
    *("--config=digits:pretrain", "--config.batch_size=16", "--parts", "feed"),
    *("--seconds", "0.05", f"--json={file}"),
  )
  assert (status, shown.err) == (0, "")
  assert max(map(len, shown.out.splitlines())) <= 88
  report = json.loads(file.read_text())
  assert report["machine"] == HERE
  assert list(report["result"]["parts"]) == ["feed"]
  assert report["result"]["compilations"]["while_measuring"] == 0
  assert "random pixels, 20,000 × 8×8" in shown.out


@pytest.mark.parametrize(
  ("words", "message"),
  [
    ("", "--config must be given, such as cifar10:pretrain"),
    (
      "--config=digits:pretrain --parts stop",
      "--parts names 'stop'; there are",
    ),
    ("--config=digits:pretrain --sweep width", "--sweep names 'width'"),
    ("--config=digits:pretrain --seconds 0", "--seconds=0.0 must be above 0"),
    ("--config=digits:pretrain --figure x.png", "--figure=x.png draws what"),
    ("--config=digits:pretrain --json no/x", "--json=no/x: there is no folder"),
    ("--config=digits:pretrain --config.batch_size=0", "batch_size=0 must be"),
    (
      "--config=cifar10:supervised,swin_tiny --sweep patches",
      "model.backbone='swin_tiny': --sweep patches needs a vit",
    ),
    (
      "--config=cifar10:supervised,swin_tiny --sweep depth",
      "model.depth=(2, 2, 6, 2) has a number for each stage",
    ),
    ("--readme no.json", "--readme=no.json cannot be read"),
    ("--pairs --rivals", "--pairs goes without --rivals"),
  ],
)
def test_what_cannot_be_is_refused_before_a_device_starts(
  words, message, capsys, monkeypatch
):
  def started(*given):
    raise AssertionError("devices were started")

  monkeypatch.setattr(partitioning, "check_config", started)
  status, shown = run(capsys, *words.split())
  assert (status, shown.out) == (2, "")
  assert message in shown.err


def test_what_the_device_has_not_is_refused_before_it_is_measured(
  capsys, monkeypatch
):
  def measured(*given):
    raise AssertionError("the machine was measured")

  monkeypatch.setattr(benchmark, "of_machine", measured)
  words = "--config=digits:pretrain", "--config.model.attention=cudnn"
  status, shown = run(capsys, *words)
  assert (status, shown.out) == (2, "")
  assert "model.attention='cudnn' needs bfloat16 and a GPU" in shown.err


def test_pairs_are_measured_alone(capsys, monkeypatch, tmp_path):
  monkeypatch.setattr(pair_scaling, "measure", lambda: PAIRS)
  kept, drawn = tmp_path / "pairs.json", tmp_path / "pairs.png"
  status, shown = run(capsys, "--pairs", f"--json={kept}", f"--figure={drawn}")
  assert (status, shown.err) == (0, "")
  assert shown.out.splitlines()[2:] == [
    "64               1.5         2.0         2.5         3.0",
    "16,384     too large     4,000.0    50,000.0       285.0",
  ]
  assert json.loads(kept.read_text())["pairs"][1]["dense_seconds"] is None
  assert drawn.stat().st_size > 10_000


PAIRS = [
  pair_scaling.Row(64, 1.5e-3, 2.5e-3, 2_000_000, 3_000_000),
  pair_scaling.Row(16_384, None, 50.0, 4_000_000_000, 285_000_000),
]


def test_clocks_of_two_parts_are_told_apart():
  pair = [Scripted("a", 0.1), Scripted("b", 0.2)]
  clocks, counts = benchmark.clocks_of(pair, 4)
  found = timing.interleaved(clocks, 4)
  assert counts == {"a": 10, "b": 5}
  assert (found["a"] / 10).median == pytest.approx(0.1)
  assert (found["b"] / 5).median == pytest.approx(0.2)
  assert np.isfinite(found["a"].quartiles).all()


def test_readme_s_tables(capsys, tmp_path):
  rows = [
    {
      "num_patches": 64,
      "dense_seconds": 0.5,
      "blockwise_seconds": 0.25,
      "dense_bytes": 2_000_000,
      "blockwise_bytes": 1_000_000,
    }
  ]
  kept = tmp_path / "pairs.json"
  kept.write_text(json.dumps({"pairs": rows}))
  status, shown = run(capsys, "--readme", str(kept))
  assert (status, shown.err) == (0, "")
  assert shown.out.splitlines() == [
    "| patches | dense, ms | MB | block by block, ms | MB |",
    "| --- | --- | --- | --- | --- |",
    "| 64 | 500.0 | 2.0 | 250.0 | 1.0 |",
  ]
