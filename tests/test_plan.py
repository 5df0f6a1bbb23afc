"""What training asks of chips: on eight CPU devices, and on TPUs not there."""

import json

import jax
import numpy as np
import pytest

from relvit_jax import cli, config
from relvit_jax.analysis import ahead, chips, plan

# Rates that are easy to divide by.
CHIP = chips.Chip(1e9, 2**30, 1e9, 1e6, (2, 2, 1), 2)
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
  assert held["peak"] > sum(
    held[key] for key in ("parameters", "optimizer", "data", "activations")
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
  assert elements == PARAMETERS + 4


def test_with_fsdp_parameters_are_gathered(spread):
  gathered = sum(
    one["times"] * one["elements"]
    for one in spread["collectives"]
    if one["kind"] == "all-gather" and one["in_step"]
  )
  assert gathered > PARAMETERS / 2


def test_the_least_time_is_that_of_the_slowest_part(replicated):
  seconds = replicated["seconds"]
  assert seconds["products"] == replicated["flops"] / 1e9
  assert seconds["memory"] == replicated["main_memory_bytes"] / 1e9
  # Seven eighths of all gradients, up and down.
  sent = 2 * 7 / 8 * 4 * (PARAMETERS + 4)
  np.testing.assert_allclose(seconds["exchange"], sent / 1e6, rtol=1e-6)
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
    ("--readme no.json", "--readme=no.json cannot be read"),
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
  assert f"digits:pretrain on {topology}: 4 chips of 1 hosts" in said
  assert cli.main(["plan", "--readme", str(path)]) == 0
  assert f"| digits:pretrain | {topology} | 32, 8 |" in capsys.readouterr().out


@pytest.mark.skipif(ahead.missing(), reason="libtpu is not installed")
def test_the_command_refuses_a_slice_that_is_none(capsys):
  typed = ["plan", "--config=digits:pretrain", "--topology=v5e:3x3"]
  assert cli.main(typed) == 2
  assert "topology='v5e:3x3' cannot be had" in capsys.readouterr().err
