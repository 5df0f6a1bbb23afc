"""Which checkpoint a path means, and which is the best."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relvit_jax.training import checkpoint_folder
from relvit_jax.training.checkpoint_folder import Folder, find

NAN = float("nan")


@pytest.fixture
def run(tmp_path):
  """A work directory as a killed run leaves it; step 20 has no record."""
  import orbax.checkpoint as ocp

  metrics = {"10": 3.0, "20": 9.0, "30": 1.0}
  with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
    for step, value in metrics.items():
      content = {"metrics": {"top1": value}, "best": ["top1", "max"]}
      item = ocp.args.JsonSave(checkpoint_folder.sealed(content))
      writer.save(
        tmp_path / "checkpoints" / step,
        args=ocp.args.Composite(record=item),
      )
  (tmp_path / "checkpoints" / "20" / "record" / "metadata").unlink()
  (tmp_path / "checkpoints" / "40.orbax-checkpoint-tmp").mkdir()
  (tmp_path / "checkpoints" / "notes.txt").write_text("")
  return tmp_path


@pytest.mark.parametrize(
  ("below", "which", "step"),
  [
    ("", None, 30),
    ("", "last", 30),
    ("", 10, 10),
    ("checkpoints", None, 30),
    ("checkpoints", "best", 10),
    ("checkpoints/10", None, 10),
    ("checkpoints/10", 10, 10),
  ],
)
def test_what_a_path_means(run, below, which, step):
  assert find(run / below, which) == (run / "checkpoints", step)
  assert find(str(run / below), which) == (run / "checkpoints", step)


def test_relative_paths_count_from_here(run, monkeypatch):
  monkeypatch.chdir(run)
  assert find("checkpoints/10") == (run / "checkpoints", 10)


@pytest.mark.parametrize(
  ("below", "which", "message"),
  [
    ("", 15, r"no checkpoint 15 in .*/checkpoints; .* there: \[10, 20, 30\]"),
    ("checkpoints/15", None, r"no checkpoint 15 in .*: \[10, 20, 30\]"),
    ("elsewhere", None, "no checkpoint in .*/elsewhere; .* there: none"),
    ("elsewhere/7", None, "no checkpoint 7 in .*/elsewhere; .* there: none"),
  ],
)
def test_what_is_not_there_is_named(run, below, which, message):
  with pytest.raises(FileNotFoundError, match=message):
    find(run / below, which)


def test_an_unknown_or_contradicting_choice_is_refused(run):
  with pytest.raises(ValueError, match="which='newest' must be a step, 'last'"):
    find(run, "newest")
  with pytest.raises(ValueError, match=r"which='best', but .*10 is step 10"):
    find(run / "checkpoints" / "10", "best")


def test_a_step_without_its_record_is_told_of(run, caplog):
  folder = Folder(checkpoint_folder.absolute(run / "checkpoints"))
  assert folder.metrics() == {10: {"top1": 3.0}, 20: {}, 30: {"top1": 1.0}}
  assert "checkpoints/20 cannot be read" in caplog.text
  with pytest.raises(ValueError, match=r"20 cannot be read.*: \[10, 20, 30\]"):
    folder.record(20)


def test_a_changed_record_is_refused(run):
  file = run / "checkpoints" / "10" / "record" / "metadata"
  file.write_text(file.read_text().replace("3.0", "4.0"))
  folder = Folder(checkpoint_folder.absolute(run / "checkpoints"))
  with pytest.raises(ValueError, match="10 is damaged: record is not what was"):
    folder.record(10)


@given(
  st.dictionaries(
    st.text(), st.one_of(st.integers(), st.floats(allow_nan=False), st.text())
  )
)
def test_a_seal_survives_json(content):
  seal = checkpoint_folder.sealed(content)
  again = json.loads(json.dumps(seal))
  assert checkpoint_folder.sealed(again["content"]) == again


@pytest.mark.parametrize(
  ("mode", "values", "best"),
  [
    ("max", {1: 1.0, 2: 3.0, 3: 2.0}, 2),
    ("min", {1: 1.0, 2: 3.0, 3: 2.0}, 1),
    ("max", {3: 1.0, 1: 1.0, 2: 1.0}, 1),
    ("max", {1: NAN, 2: 0.0}, 2),
    ("min", {1: NAN, 2: NAN}, None),
    ("max", {}, None),
  ],
)
def test_the_best(mode, values, best):
  metrics = {step: {"top1": value} for step, value in values.items()}
  assert checkpoint_folder.best_of(values, metrics, ("top1", mode)) == best
  assert checkpoint_folder.best_of(values, metrics, None) is None
  assert checkpoint_folder.best_of(values, metrics, ("top5", mode)) is None


@pytest.mark.parametrize(
  ("path", "level", "passes"),
  [
    ("/lib/orbax/checkpoint/manager.py", logging.INFO, False),
    ("/lib/orbax/checkpoint/manager.py", logging.WARNING, True),
    ("/lib/other/manager.py", logging.INFO, True),
  ],
)
def test_only_orbaxs_chatter_is_kept_quiet(path, level, passes):
  checkpoint_folder.orbax()
  record = logging.LogRecord("absl", level, path, 1, "text", (), None)
  assert bool(logging.getLogger("absl").filter(record)) == passes


def test_a_remote_path_stays_remote():
  path = checkpoint_folder.absolute("gs://bucket/run")
  assert str(path / "checkpoints") == "gs://bucket/run/checkpoints"


def test_metrics_that_came_later_are_sealed_too(run, caplog):
  folder = Folder(run / "checkpoints")
  path = run / "checkpoints" / "30" / "evaluation.json"
  folder.add_metrics(30, {"top1": NAN})
  assert "NaN" in path.read_text()
  # What was saved with the state counts; only where there was nothing, this.
  assert folder.metrics()[30] == {"top1": 1.0}
  content = {"metrics": {}, "best": ["top1", "max"]}
  record = run / "checkpoints" / "30" / "record" / "metadata"
  record.write_text(json.dumps(checkpoint_folder.sealed(content)))
  folder.add_metrics(30, {"top1": 5.0})
  assert folder.metrics()[30] == {"top1": 5.0}
  path.write_text(path.read_text().replace("5.0", "6.0"))
  with caplog.at_level(logging.WARNING):
    assert folder.metrics()[30] == {}
  assert f"{path} is damaged: it is not what was written" in caplog.text
