"""Several processes are one run: they find each other, agree, and learn alike.

Two real processes with four CPU devices each, beside one with eight.
"""

import http.server
import json
import pathlib
import re
import shutil
import threading
import time
from typing import ClassVar

import numpy as np
import pytest
import two_processes
from feed_process import blocks
from tiny_runs import typed

from relvit_jax import cli
from relvit_jax.training import checkpoint, distributed, logs

TESTS = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
  """(the work directory of a run of two processes, what each said)."""
  workdir = tmp_path_factory.mktemp("pair") / "run"
  said = two_processes.finish(
    two_processes.train(typed("digits:pretrain", workdir))
  )
  assert [status for status, _, _ in said] == [0, 0], said
  return workdir, said


def curve(workdir):
  return [
    {key: value for key, value in record.items() if key != "time"}
    for record in logs.read(workdir)
  ]


def assert_alike(ours, theirs):
  """Curves of the same run on another topology."""
  assert [(r["step"], r["split"]) for r in ours] == [
    (r["step"], r["split"]) for r in theirs
  ]
  for one, other in zip(ours, theirs, strict=True):
    numbers = {k: v for k, v in one.items() if k not in ("step", "split")}
    assert numbers == pytest.approx(
      {k: other[k] for k in numbers}, rel=1e-6, abs=1e-6
    )


@pytest.mark.long
def test_two_processes_learn_as_one(pair, pretrain_run):
  """And with all that is random where one is told to stop, in its own tests."""
  assert_alike(curve(pair[0]), curve(pretrain_run))


@pytest.mark.long
def test_the_first_process_alone_tells(pair):
  _, ((_, told, _), (_, silent, errors)) = pair
  assert "on 8 × " in told
  assert "last, step 8, test: loss" in told
  # Of the library that connects CPUs, whose threads write into one another.
  gloo = (
    r"\[Gloo\] Rank | is connected to | peer ranks\. |\d+|\n"
    r"|Expected number of connected peer ranks is : "
  )
  assert re.sub(gloo, "", silent) == ""
  assert "step 8" not in errors


@pytest.mark.long
def test_another_topology_restores_what_two_processes_saved(pair, capsys):
  workdir, ((_, told, _), _) = pair
  assert cli.main(typed("digits:pretrain", workdir)) == 0
  said = capsys.readouterr().out
  assert "resumes at step 8 of 8" in said
  assert [line for line in said.splitlines() if line.startswith("last,")] == [
    line for line in told.splitlines() if line.startswith("last,")
  ]


@pytest.mark.long
def test_both_wrote_their_part_of_a_checkpoint(pair):
  weights = checkpoint.find(pair[0])[0] / "8" / "weights"
  folders = {path.name for path in weights.iterdir()}
  assert {"ocdbt.process_0", "ocdbt.process_1"} <= folders


@pytest.mark.parametrize("stream", [False, True])
def test_every_row_of_every_step_is_that_of_one_process(stream, tmp_path):
  program = [str(TESTS / "feed_process.py"), f"--to={tmp_path}"]
  program += ["--stream"] if stream else []
  said = two_processes.finish(two_processes.start(program))
  assert [status for status, _, _ in said] == [0, 0], said
  seen = [dict(np.load(tmp_path / f"{i}.npz")) for i in range(2)]
  assert not seen[0].keys() & seen[1].keys()
  whole = blocks(stream)
  assert (seen[0] | seen[1]).keys() == whole.keys()
  for name, image in (seen[0] | seen[1]).items():
    np.testing.assert_array_equal(image, whole[name], err_msg=name)


@pytest.mark.parametrize(
  ("told", "message"),
  [
    ("--config.seed=1", "seed is 0 for process 0 and 1 for process 1"),
    (
      "--config.data.splits.train=test",
      "data.splits.train is 'train' for process 0 and 'test' for process 1",
    ),
  ],
)
def test_what_they_are_told_must_be_the_same(told, message, tmp_path):
  words = typed("digits:pretrain", tmp_path / "run")
  said = two_processes.finish(two_processes.train(words, [], [told]), 120)
  for status, _, errors in said:
    assert status == 2
    assert message in errors
  assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_work_directories_that_are_not_shared_are_noticed(pair, tmp_path):
  words = typed("digits:pretrain", pair[0])
  own = [f"--workdir={tmp_path / 'own'}"]
  for status, _, errors in two_processes.finish(
    two_processes.train(words, [], own), 120
  ):
    assert status == 2
    assert "newest checkpoint is 8 for process 0 and None for" in errors


@pytest.mark.long
def test_what_only_one_cannot_go_on_from_ends_all_of_them(pair, tmp_path):
  """Soon, and not when whoever waits for it gives up: minutes later."""
  own = tmp_path / "own"
  shutil.copytree(pair[0], own)
  for part in (own / "checkpoints" / "8" / "weights").rglob("*"):
    if part.is_file():
      part.write_bytes(b"")
  words = typed("digits:pretrain", pair[0])
  began = time.monotonic()
  first, second = two_processes.finish(
    two_processes.train(words, [], [f"--workdir={own}"])
  )
  assert time.monotonic() - began < 120
  assert first[0] != 0
  assert second[0] == 2
  assert f"relvit train: {own}/checkpoints/8" in second[2]


def test_what_one_cannot_do_none_begins(tmp_path):
  """One of them finds somebody's files where its run was to be."""
  other = tmp_path / "other"
  other.mkdir()
  (other / "letter.txt").write_text("dear")
  words = typed("digits:pretrain", tmp_path / "run")
  first, second = two_processes.finish(
    two_processes.train(words, [], [f"--workdir={other}"]), 120
  )
  assert first[0] == second[0] == 2
  assert f"workdir={other} holds other files" in second[2]
  assert f"process 1 cannot begin: workdir={other} holds" in first[2]


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--process_id=0"], "--coordinator_address and --num_processes must be"),
    (
      ["--coordinator_address=a", "--num_processes=2", "--process_id=0"],
      "--coordinator_address=a must be HOST:PORT, such as",
    ),
    (
      ["--coordinator_address=a:1", "--num_processes=2", "--process_id=2"],
      "--process_id=2 must be from 0 to 1",
    ),
    (
      ["--coordinator_address=a:1", "--num_processes=0", "--process_id=0"],
      "--num_processes=0 must be at least 1",
    ),
  ],
)
def test_wrong_flags_are_refused(flags, message, tmp_path, capsys):
  words = typed("digits:pretrain", tmp_path / "run") + flags
  assert cli.main(words) == 2
  assert message in capsys.readouterr().err


STEP = {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_STEP_NUM_TASKS": "8"}


@pytest.mark.parametrize(
  ("environment", "tasks"),
  [
    ({}, 1),
    # A batch script or the shell of salloc: srun has not been called.
    ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, 1),
    (STEP, 8),
    (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, 1),
  ],
)
def test_tasks_of_a_slurm_step(environment, tasks):
  assert distributed.slurm_tasks(environment) == tasks


@pytest.mark.parametrize(
  ("gpus", "tasks_on_nodes", "node", "local", "visible", "mine"),
  [
    (0, "2(x2)", 0, 1, "", None),
    # A task for each GPU, or one for a node with all of them.
    (4, "4(x2)", 1, 3, "0,1,2,3", [3]),
    (4, "1(x2)", 1, 0, "0,1,2,3", [0, 1, 2, 3]),
    (4, "2(x2)", 0, 1, "0,1,2,3", [2, 3]),
    # --gpus-per-task: each sees its own as number 0.
    (4, "4(x2)", 0, 3, "3", [0]),
    (4, "2,4(x2),1", 3, 0, "0,1,2,3", [0, 1, 2, 3]),
  ],
)
def test_gpus_of_a_slurm_task(gpus, tasks_on_nodes, node, local, visible, mine):
  environment = {
    "SLURM_GPUS_ON_NODE": str(gpus),
    "SLURM_STEP_TASKS_PER_NODE": tasks_on_nodes,
    "SLURM_NODEID": str(node),
    "SLURM_LOCALID": str(local),
    "CUDA_VISIBLE_DEVICES": visible,
  }
  assert distributed.slurm_devices(environment) == mine


def test_gpus_that_tasks_cannot_share_are_refused():
  environment = {
    "SLURM_GPUS_ON_NODE": "4",
    "SLURM_STEP_TASKS_PER_NODE": "3",
    "SLURM_NODEID": "0",
    "SLURM_LOCALID": "0",
  }
  with pytest.raises(ValueError, match="SLURM_GPUS_ON_NODE=4 GPUs cannot be"):
    distributed.slurm_devices(environment)


class Metadata(http.server.BaseHTTPRequestHandler):
  """What Google's cloud tells a machine of a slice of four hosts.

  Attributes:
    faults: what it does first: a status, or None to hang up.
  """

  faults: ClassVar = []

  def do_GET(self):
    if self.faults:
      fault = self.faults.pop(0)
      if fault:
        self.send_error(fault)
      return
    known = self.path.endswith("/instance/attributes/worker-network-endpoints")
    asked_well = self.headers["Metadata-Flavor"] == "Google"
    self.send_response(200 if known and asked_well else 404)
    self.end_headers()
    self.wfile.write(b"a:1:10.0.0.1,b:2:10.0.0.2,c:3:10.0.0.3,d:4:10.0.0.4")

  def log_message(self, *given):
    pass


@pytest.fixture
def metadata_server():
  server = http.server.HTTPServer(("127.0.0.1", 0), Metadata)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  yield f"127.0.0.1:{server.server_port}"
  server.shutdown()
  server.server_close()


def test_hosts_of_a_tpu_slice(metadata_server):
  count = distributed.tpu_hosts
  assert count({"GCE_METADATA_IP": metadata_server}) == 4
  assert count({"TPU_WORKER_HOSTNAMES": "t-0,t-1"}) == 2
  several = {"TPU_WORKER_HOSTNAMES": "t-0,t-1", "MEGASCALE_NUM_SLICES": "3"}
  assert count(several) == 6
  assert count({"TPU_SKIP_MDS_QUERY": "1"}) == 1
  # No such server, as in a notebook.
  nowhere = f"127.0.0.1:{two_processes.free_port()}"
  assert count({"GCE_METADATA_IP": nowhere}) == 1


def test_a_server_that_is_busy_is_asked_again(metadata_server, monkeypatch):
  monkeypatch.setattr(distributed, "_WAITS", (0, 0, 0))
  asked = {"GCE_METADATA_IP": metadata_server}
  monkeypatch.setattr(Metadata, "faults", [503, None])
  assert distributed.tpu_hosts(asked) == 4
  monkeypatch.setattr(Metadata, "faults", [503, 429, 503])
  with pytest.raises(OSError, match=r"worker-network-endpoints does not say"):
    distributed.tpu_hosts(asked)
  monkeypatch.setattr(Metadata, "faults", [None, None, None])
  assert distributed.tpu_hosts(asked) == 1


def test_alone_a_process_agrees_with_itself():
  assert distributed.gather({"a": [1]}) == [{"a": [1]}]
  distributed.check_same({"a": 1})
  assert distributed.together(lambda: 5) == 5
  assert distributed.is_first()
  assert not distributed.several()
  with pytest.raises(ValueError, match="Expecting value"):
    distributed.together(lambda: json.loads("no"))
