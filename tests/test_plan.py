"""What training asks of chips: on eight CPU devices, and on TPUs not there."""

import json

import jax
import numpy as np
import pytest

from relvit_jax import cli, config
from relvit_jax.analysis import ahead, chips, plan, plan_search

pytestmark = pytest.mark.long

# Rates that are easy to divide by.
CHIP = chips.Chip(1e9, 2.0**30, 1e9, 1e6, (2, 2), 99)
# One neighbour along the shorter axis: three quarters of the links.
WHERE = chips.Slice("v0:2x4", CHIP, (2, 4))


def report(*overrides, spec="digits:pretrain"):
  settings = config.load(spec, overrides)
  return plan.Planned(settings, WHERE, jax.devices()).report()


@pytest.fixture(scope="module")
def replicated():
  return report()


@pytest.fixture(scope="module")
def spread():
  return report("mesh.fsdp=8")


# A block's norms leave the gradients of their scale and bias to weights, which
# are summed over the chips already.
NORMS = 2 * 2 * 64
# Patches of 12 pixels and the class token; two blocks of width 32; the last
# norm; 9 relations of width 3 for queries and keys; 16 positions.
PARAMETERS = (
  (12 * 32 + 32 + 32)
  + 2 * (2 * 64 + 32 * 96 + 96 + 32**2 + 32 + 2 * 32 * 128 + 128 + 32)
  + 64
  + 2 * 32 * 27
  + (32 * 16 + 16)
)


def test_every_chip_holds_all_parameters(replicated):
  assert replicated["parameters"] == PARAMETERS
  held = replicated["memory"]
  assert held["parameters"] == 4 * PARAMETERS
  # AdamW's moments, and how many steps were taken.
  assert 0 < held["optimizer"] - 8 * PARAMETERS <= 8
  assert held["average"] == held["fixed"] == 0
  assert held["data"] == 1_097 * (8 * 8 * 3 + 4)
  # Labels, which nothing here learns, are not handed to the program.
  assert held["peak"] > 1_097 * 8 * 8 * 3 + sum(
    held[key] for key in ("parameters", "optimizer", "activations")
  )


def test_with_fsdp_a_chip_holds_an_eighth_of_the_matrices(replicated, spread):
  assert spread["mesh"] == {"data": 1, "fsdp": 8}
  whole, part = (one["memory"]["parameters"] for one in (replicated, spread))
  # Biases, norms and embeddings are whole everywhere.
  assert whole / 8 < part < whole / 5


def test_without_fsdp_only_sums_are_told(replicated):
  assert {one["kind"] for one in replicated["collectives"]} == {"all-reduce"}
  elements = sum(one["elements"] for one in replicated["collectives"])
  # And of both tasks the loss and what was right.
  assert elements == PARAMETERS - NORMS + 4


def test_with_fsdp_parameters_are_gathered(spread):
  gathered = sum(
    one["times"] * one["elements"]
    for one in spread["collectives"]
    if one["kind"] == "all-gather" and one["in_step"]
  )
  assert gathered > PARAMETERS / 2


def test_the_least_time_is_that_of_the_slowest_part(replicated):
  seconds = replicated["seconds"]
  assert replicated["unknown_loops"] == 0
  assert seconds["products"] == replicated["flops"] / 1e9
  assert seconds["memory"] == replicated["main_memory_bytes"] / 1e9
  # A CPU has one memory.
  assert replicated["kernel_bytes"] == replicated["main_memory_bytes"]
  # Seven eighths of all gradients, up and down.
  sent = 2 * 7 / 8 * 4 * (PARAMETERS - NORMS + 4)
  np.testing.assert_allclose(seconds["exchange"], sent / 0.75e6, rtol=1e-6)
  assert replicated["bound"] == "exchange"
  assert seconds["step"] == max(
    seconds[key] for key in ("products", "memory", "exchange")
  )


def test_a_chip_multiplies_for_its_images(replicated):
  """4 of 32 images, with 17 tokens; three times the forward pass."""
  block = 2 * 17 * 32 * (4 * 32 + 8 * 32) + 4 * 17**2 * 32
  assert replicated["flops"] > 3 * 4 * 2 * block
  assert replicated["flops"] < 4 * 4 * 2 * block


def test_epoch_and_run_are_counted_in_steps(replicated):
  assert replicated["images"] == 1_097
  assert replicated["steps"] == {"epoch": 35, "run": 4_000}
  assert replicated["steps_per_dispatch"] == 100
  assert report("eval_every=7")["steps_per_dispatch"] == 7


def test_a_plan_can_be_kept(replicated):
  assert json.loads(json.dumps(replicated)) == replicated


@pytest.mark.parametrize(
  ("estimate", "shown"),
  [(-3.2, False), (0.5, False), (2.0, True)],
)
def test_the_compilers_estimate_is_shown_where_it_can_be(estimate, shown):
  found = plan.compiler_says({"optimal_seconds": estimate, "flops": 7.0}, 1.0)
  assert found["flops"] == 7.0
  assert ("seconds" in found) == shown


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    (["batch_size=20"], "batch_size=20 must be a multiple of the 8 devices"),
    (["mesh.fsdp=3"], "mesh.fsdp=3 must divide the 8 devices, such as 2"),
    (
      ["model.embed_dim=20", "mesh.fsdp=8"],
      r"shape \(20, 20\), is not a multiple of mesh.fsdp=8, as it is of 4",
    ),
  ],
)
def test_what_does_not_fit_is_refused_with_what_does(overrides, message):
  settings = config.load("digits:pretrain", overrides)
  with pytest.raises(ValueError, match=message):
    plan.Planned(settings, WHERE, jax.devices())


@pytest.mark.parametrize(
  ("words", "message"),
  [
    ("", "--config must be given, such as cifar10:pretrain"),
    (
      "--config=cifar10:pretrain",
      "--topology must be given, such as v5e",
    ),
    (
      "--config=cifar10:pretrain --topology=v5e:4x4 --fsdps 2",
      "--fsdps needs --sweep",
    ),
    (
      "--config=cifar10:pretrain --topology=v5e:4x4 --sweep --batch_sizes 0",
      "--batch_sizes=0 must be at least 1",
    ),
    (
      "--config=cifar10:pretrain --topology=v5e:4x4 --json no/where.json",
      "--json=no/where.json: there is no folder no",
    ),
    (
      "--config=cifar10:pretrain --topology=v5e:4x4 --config.model.depth=0",
      "model.depth=0 must be",
    ),
    (
      "--config=cifar10:pretrain --topology=v5e:4x4 --json .",
      "--json=. is a folder; it must be a file",
    ),
    ("--readme no.json", "--readme=no.json cannot be read"),
    ("--readme no.json --sweep", "--readme goes without --sweep"),
  ],
)
def test_what_cannot_be_asked_is_refused_before_anything(
  words, message, capsys
):
  assert cli.main(["plan", *words.split()]) == 2
  assert message in capsys.readouterr().err


@pytest.mark.skipif(ahead.missing(), reason="libtpu is not installed")
@pytest.mark.parametrize("topology", ["v5e:2x2", "v4:2x2x1"])
def test_the_command_plans_for_chips_that_are_not_there(
  topology, tmp_path, capsys
):
  path = tmp_path / "plan.json"
  typed = [
    "plan",
    "--config=digits:pretrain",
    f"--topology={topology}",
    f"--json={path}",
  ]
  assert cli.main(typed) == 0
  kept = json.loads(path.read_text(encoding="utf-8"))
  assert (kept["chips"], kept["hosts"]) == (4, 1)
  assert kept["parameters"] == PARAMETERS
  exchanges = kept["collectives"]
  assert {(one["kind"], one["devices"]) for one in exchanges} == {
    ("all-reduce", 4)
  }
  assert sum(one["elements"] for one in exchanges) == PARAMETERS + 4
  said = capsys.readouterr().out
  assert f"digits:pretrain on {topology}: 4 chips, 1 host," in said
  assert cli.main(["plan", "--readme", str(path)]) == 0
  assert f"| digits:pretrain | {topology} | 32, 8 |" in capsys.readouterr().out


@pytest.mark.skipif(ahead.missing(), reason="libtpu is not installed")
def test_the_command_refuses_a_slice_that_is_none(capsys):
  typed = ["plan", "--config=digits:pretrain", "--topology=v5e:3x3"]
  assert cli.main(typed) == 2
  assert "topology='v5e:3x3' cannot be had" in capsys.readouterr().err


@pytest.mark.skipif(ahead.missing(), reason="libtpu is not installed")
def test_with_fsdp_a_tpu_gathers_each_matrix_for_both_passes(tmp_path):
  path = tmp_path / "plan.json"
  typed = [
    "plan",
    "--config=digits:pretrain",
    "--topology=v5e:2x2",
    "--config.mesh.fsdp=4",
    f"--json={path}",
  ]
  assert cli.main(typed) == 0
  kept = json.loads(path.read_text(encoding="utf-8"))
  told = {
    kind: sum(
      one["times"] * one["elements"]
      for one in kept["collectives"]
      if one["kind"] == kind and one["in_step"]
    )
    for kind in ("all-gather", "reduce-scatter")
  }
  # Of biases, norms and embeddings nothing is gathered.
  assert PARAMETERS / 2 < told["all-gather"] < 3 * PARAMETERS
  assert told["reduce-scatter"] < 1.5 * PARAMETERS


TYPED = ["plan", "--config=cifar10:pretrain", "--topology=v5e:2x2"]


@pytest.fixture
def compiler(monkeypatch):
  """One that finds all batches above 300 too large, and compiles none."""

  class Planned:
    def __init__(self, settings, where, devices):
      self.batch = settings.batch_size

    def report(self):
      if self.batch > 300:
        raise ahead.TooLargeError(2.0**34 * self.batch / 300, 2.0**34)
      return {
        "seconds": {"step": 1.0},
        "memory": {"peak": 1},
        "bound": "memory",
      }

  monkeypatch.setattr(ahead, "missing", lambda: False)
  monkeypatch.setattr(ahead, "devices", lambda where: [])
  monkeypatch.setattr(plan, "Planned", Planned)
  monkeypatch.setattr(plan_search, "Planned", Planned)


def test_the_command_names_a_batch_that_fits(compiler, capsys):
  assert cli.main([*TYPED, "--config.batch_size=1024"]) == 2
  said = capsys.readouterr().err
  assert "batch_size=1024 does not fit v5e:2x2: a chip would need 54.6" in said
  assert "batch_size=284 fits" in said


def test_a_sweep_names_the_fastest(compiler, capsys, tmp_path):
  path = tmp_path / "sweep.json"
  batches = ["--batch_sizes", "128", "256", "512"]
  typed = [*TYPED, "--sweep", *batches, "--fsdps", "1", f"--json={path}"]
  assert cli.main(typed) == 0
  said = capsys.readouterr().out
  assert "the fastest that fits" in said
  assert "--config.batch_size=256 --config.mesh.fsdp=1" in said
  rows = json.loads(path.read_text(encoding="utf-8"))["sweep"]
  assert ["plan" in row for row in rows] == [True, True, False]
  assert cli.main(["plan", "--readme", str(path)]) == 2
  assert "has none of memory: it must be a file that" in capsys.readouterr().err


def test_where_nothing_fits_a_sweep_says_so(compiler, capsys):
  typed = [*TYPED, "--sweep", "--batch_sizes", "512", "--fsdps", "1"]
  assert cli.main(typed) == 2
  assert "none of these fits v5e:2x2" in capsys.readouterr().err


def test_without_the_compiler_the_command_says_what_brings_it(
  monkeypatch, capsys
):
  monkeypatch.setattr(ahead, "missing", lambda: True)
  assert cli.main(TYPED) == 2
  assert "bash launch/environment.sh tpu" in capsys.readouterr().err
