"""The quick start at its smallest, from the command to the page."""

import json

import matplotlib.image
import pytest

from relvit_jax import cli


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
    for run in arm["runs"]:
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
