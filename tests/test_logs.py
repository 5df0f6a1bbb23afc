"""Metrics as files: nothing is lost, and nothing is there twice."""

import json
import math
import resource
import struct
import sys
import types

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboardX.proto.event_pb2 import Event, SessionLog

from relvit_jax.training import logs
from relvit_jax.training.logs import Logs


def without_time(records):
  return [
    {key: value for key, value in record.items() if key != "time"}
    for record in records
  ]


def events(folder):
  """All events of a folder, file by file in the order of their names."""
  result = []
  for path in sorted(folder.glob("events.out.tfevents.*")):
    content = path.read_bytes()
    while content:
      (length,) = struct.unpack("<Q", content[:8])
      result.append(Event.FromString(content[12 : 12 + length]))
      content = content[16 + length :]
  return result


def scalars(folder):
  return [
    (event.step, value.tag, value.simple_value)
    for event in events(folder)
    for value in event.summary.value
  ]


def test_a_record_is_a_line(tmp_path):
  with Logs(tmp_path / "run") as log:
    log.write(20, "train", {"loss_total": 0.1})
    log.write(20, "validation", {"label_top1": 1 / 3, "label_top5": 1})
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
  first, second = text.splitlines()
  assert first.startswith('{"step": 20, "split": "train", "time": ')
  assert first.endswith(', "loss_total": 0.1}')
  assert json.loads(second)["label_top1"] == 1 / 3
  assert without_time(logs.read(tmp_path / "run")) == [
    {"step": 20, "split": "train", "loss_total": 0.1},
    {"step": 20, "split": "validation", "label_top1": 1 / 3, "label_top5": 1.0},
  ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.floats())
def test_every_number_comes_back(tmp_path, value):
  with Logs(tmp_path, tensorboard=False) as log:
    log.write(1, "test", {"value": value})
  (record,) = logs.read(tmp_path)
  # As text, which tells -0.0 from 0.0.
  assert repr(record["value"]) == repr(value)


def test_what_is_no_number_in_json_is_a_word(tmp_path):
  with Logs(tmp_path, tensorboard=False) as log:
    log.write(
      1, "train", {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.0}
    )
  line = json.loads(
    (tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail
  )
  assert [line[name] for name in "abcd"] == ["NaN", "Infinity", "-Infinity", 0]


def write(folder, steps, **arguments):
  with Logs(folder, **arguments) as log:
    for step in steps:
      log.write(step, "train", {"loss": step / 7})
    return log.dropped


@pytest.mark.parametrize(
  ("torn", "lost"),
  [(b"", 0), (b'{"step": 70, "spl', 1), (b"{", 1), (b"\xff", 1)],
)
def test_a_resumed_file_is_that_of_an_undisturbed_run(tmp_path, torn, lost):
  whole, resumed = tmp_path / "whole", tmp_path / "resumed"
  write(whole, range(10, 100, 10))
  write(resumed, range(10, 70, 10))
  with (resumed / "metrics.jsonl").open("ab") as file:
    file.write(torn)
  dropped = write(resumed, range(50, 100, 10), resume_step=40)
  assert dropped == 2 + lost
  assert without_time(logs.read(resumed)) == without_time(logs.read(whole))
  assert not list(resumed.glob("*.new"))


def test_nothing_is_dropped_where_nothing_is_too_new(tmp_path):
  write(tmp_path, [10, 20])
  before = (tmp_path / "metrics.jsonl").read_bytes()
  assert write(tmp_path, [], resume_step=20) == 0
  assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_run_from_the_start_begins_a_new_file(tmp_path):
  write(tmp_path, [0, 10])
  assert write(tmp_path, [0]) == 2
  assert [record["step"] for record in logs.read(tmp_path)] == [0]


def test_a_last_line_without_its_end_is_kept_if_it_is_whole(tmp_path):
  write(tmp_path, [10, 20])
  path = tmp_path / "metrics.jsonl"
  path.write_bytes(path.read_bytes()[:-1])
  assert [record["step"] for record in logs.read(tmp_path)] == [10, 20]
  assert write(tmp_path, [30], resume_step=20) == 0
  assert [record["step"] for record in logs.read(tmp_path)] == [10, 20, 30]


def test_a_last_line_in_the_making_is_left_out_by_read(tmp_path):
  write(tmp_path, [10])
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 20')
  assert [record["step"] for record in logs.read(tmp_path)] == [10]


@pytest.mark.parametrize("line", ["{", "[1]", '{"split": "train"}', "3", ""])
def test_a_strange_line_is_named_and_left_alone(tmp_path, line):
  path = tmp_path / "metrics.jsonl"
  write(tmp_path, [10])
  content = f"{line}\n" + path.read_text()
  path.write_text(content)
  for call in (lambda: logs.read(tmp_path), lambda: Logs(tmp_path)):
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1 is no rec"):
      call()
  assert path.read_text() == content


def test_no_file_is_an_error(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
    logs.read(tmp_path)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((1, "eval", {}), "split='eval' must be one of train, validation, test"),
    ((1, "train", {"step": 1.0}), "cannot be named 'step'"),
    ((1, "train", {"time": 1.0}), "cannot be named 'time'"),
  ],
)
def test_what_cannot_be_written_is_refused(tmp_path, arguments, message):
  with Logs(tmp_path) as log, pytest.raises(ValueError, match=message):
    log.write(*arguments)
  assert logs.read(tmp_path) == []
  assert scalars(tmp_path) == []


def write_ten(log):
  for step in range(10):
    log.write(step, "train", {"loss": 1.0})


@pytest.mark.parametrize("tensorboard", [False, True])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, tensorboard):
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  log = Logs(tmp_path, tensorboard=tensorboard)
  resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
  try:
    with pytest.raises(OSError, match=r"jsonl|tfevents"):
      write_ten(log)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  log.close()
  # What was written before is there, and a run can go on.
  steps = [record["step"] for record in logs.read(tmp_path)]
  assert steps == list(range(len(steps)))
  assert steps
  write(tmp_path, [20], resume_step=1)
  assert [r["step"] for r in logs.read(tmp_path)] == [0, 1, 20]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(OSError, match="file/run"):
    Logs(tmp_path / "file" / "run")
  (tmp_path / "metrics.jsonl").mkdir()
  with pytest.raises(OSError, match=r"metrics\.jsonl"):
    Logs(tmp_path)


def test_closing_twice_is_harmless(tmp_path):
  log = Logs(tmp_path)
  log.close()
  log.close()


def test_tensorboard_gets_every_number(tmp_path):
  with Logs(tmp_path) as log:
    log.write(20, "train", {"loss_total": 0.5, "gradient_norm": 2.0})
    log.write(20, "validation", {"label_top1": 0.25})
    # While the run goes on, not only at its end.
    assert scalars(tmp_path) == [
      (20, "train/loss_total", 0.5),
      (20, "train/gradient_norm", 2.0),
      (20, "validation/label_top1", 0.25),
    ]
  first, second, _ = events(tmp_path)
  assert first.file_version == "brain.Event:2"
  (record, _) = logs.read(tmp_path)
  assert second.wall_time == record["time"]


@pytest.mark.parametrize(("resume_step", "hidden_from"), [(40, 41), (0, 0)])
def test_tensorboard_hides_what_a_resumed_run_repeats(
  tmp_path, resume_step, hidden_from
):
  write(tmp_path, [20, 40, 60])
  write(tmp_path, [60, 80], resume_step=resume_step)
  assert len(list(tmp_path.glob("events.*"))) == 2
  (start,) = [e for e in events(tmp_path) if e.HasField("session_log")]
  assert start.session_log.status == SessionLog.START
  assert start.step == hidden_from


def test_no_tensorboard_files_unless_asked_for(tmp_path):
  write(tmp_path, [1], tensorboard=False)
  assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


class FakeWandb(types.ModuleType):
  """Records what W&B would send."""

  def __init__(self):
    super().__init__("wandb")
    self.started, self.logged, self.finished = [], [], 0

  def init(self, **settings):
    self.started.append(settings)
    return self

  def log(self, values, step):
    self.logged.append((step, values))

  def finish(self):
    self.finished += 1


def test_a_resumed_run_goes_on_with_its_wandb_run(tmp_path, monkeypatch):
  fake = FakeWandb()
  monkeypatch.setitem(sys.modules, "wandb", fake)
  asked = {"project": "relvit", "mode": "offline"}
  write(tmp_path, [20], wandb=asked)
  write(tmp_path, [40], wandb=asked, resume_step=20)
  first, second = fake.started
  assert first == second
  assert first == asked | {
    "id": (tmp_path / "wandb_id.txt").read_text().strip(),
    "resume": "allow",
    "dir": str(tmp_path),
  }
  assert fake.logged == [
    (20, {"train/loss": 20 / 7}),
    (40, {"train/loss": 40 / 7}),
  ]
  assert fake.finished == 2


def test_what_begins_anew_is_another_wandb_run(tmp_path, monkeypatch):
  fake = FakeWandb()
  monkeypatch.setitem(sys.modules, "wandb", fake)
  for name in "aab":
    write(tmp_path / name, [], wandb={})
  assert len({settings["id"] for settings in fake.started}) == 3


def test_wandb_that_is_not_installed_is_told_before_anything(
  tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, "wandb", None)
  message = r"wandb=\{'project': 'a'\} asks for .* pip install wandb"
  with pytest.raises(ValueError, match=message):
    Logs(tmp_path / "run", wandb={"project": "a"})
  assert not (tmp_path / "run").exists()
  write(tmp_path, [1])  # It takes no part unless asked for.
