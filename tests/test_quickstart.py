"""The quick start at its smallest, from the command to the page."""

import json

import matplotlib.image
import pytest

from relvit_jax import cli
from relvit_jax.analysis import comparison, quickstart
from relvit_jax.analysis.comparison import Summary
from relvit_jax.data import sources
from relvit_jax.training import loop, step

pytestmark = pytest.mark.long

NO_STATE = step.TrainState(None, None, {}, {}, ())


def runs_of(*accuracies):
  return [
    comparison.Run(
      seed=seed,
      seconds=1.0,
      labelled=NO_STATE,
      history=loop.History(evaluation={100: {"label_top1": accuracy}}),
    )
    for seed, accuracy in enumerate(accuracies)
  ]


def test_the_table_of_arms():
  arms = quickstart.make_arms(sources.digits(), 100)
  short, relvit, long = (arm.name for arm in arms)
  runs = {
    short: runs_of(0.60, 0.70),
    relvit: runs_of(0.80, 0.80),
    long: runs_of(0.90, 0.92),
  }
  assert quickstart.arms_table(arms, runs, arms[1]).rows == [
    (short, "100", "100", "65.0 ± 7.1", "+15.0 ± 7.1"),
    (relvit, "100", "500", "80.0 ± 0.0", ""),
    (long, "500", "500", "91.0 ± 1.4", "-11.0 ± 1.4"),
  ]


def test_fine_tuning_and_supervised_training_are_compiled_as_one():
  supervised, relvit, _ = quickstart.make_arms(sources.digits(), 100)
  assert relvit.labelled is supervised.labelled


def test_the_steps_of_pretraining_can_be_chosen():
  arms = quickstart.make_arms(sources.digits(), 100, pretrain_steps=200)
  assert [arm.all_steps for arm in arms] == [100, 300, 300]


def test_the_table_of_what_pretraining_learns():
  pretext = {
    name: {
      "test": Summary(0.36, 0.01, 5),
      "chance": 0.141,
      "blank": Summary(0.12, 0.02, 5),
    }
    for name in ("relation_accuracy", "position_accuracy")
  }
  table = quickstart.pretext_table(pretext, (4, 4))
  assert table.head[1:] == ("test accuracy %", "chance", "blank images")
  for row in table.rows:
    assert row[1:] == ("36.0 ± 1.0", "14.1", "12.0 ± 2.0")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "quickstart"
  status = cli.main(
    ["quickstart", "--workdir", str(workdir), "--seeds", "2", "--steps", "100"]
  )
  assert status == 0
  return workdir


def test_it_writes_a_page_pictures_and_numbers(finished):
  assert {path.name for path in finished.iterdir()} == {
    "index.html",
    "curves.png",
    "relations.png",
    "positions.png",
    "results.json",
  }
  for picture in finished.glob("*.png"):
    height, width, _ = matplotlib.image.imread(picture).shape
    assert height > 300
    assert width > 900


def test_the_numbers_are_those_of_three_arms(finished):
  results = json.loads((finished / "results.json").read_text())
  arms = results["arms"]
  assert [(a["labelled_steps"], a["all_steps"]) for a in arms] == [
    (100, 100),
    (100, 500),
    (500, 500),
  ]
  for arm in arms:
    assert [run["seed"] for run in arm["runs"]] == [0, 1]
    first, second = arm["runs"]
    assert first["evaluation"] != second["evaluation"]
    for run in (first, second):
      assert 0 < run["test_accuracy"] < 1
  for scores in results["pretext"].values():
    assert scores["test"] > 1.2 * scores["chance"]
    assert scores["blank"] <= scores["chance"] + 1e-6


def test_the_page_shows_what_the_numbers_say(finished):
  results = json.loads((finished / "results.json").read_text())
  page = (finished / "index.html").read_text(encoding="utf-8")
  assert results["verdict"] in page
  for arm in results["arms"]:
    accuracies = [run["test_accuracy"] for run in arm["runs"]]
    assert f"{50 * sum(accuracies):.1f} ±" in page
  for name in ("curves", "relations", "positions"):
    assert f'src="{name}.png"' in page
