"""SIGTERM: the run saves, leaves soon, and goes on from where it was."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import two_processes
from test_distributed import assert_alike, curve
from tiny_runs import RANDOM, typed

from relvit_jax import cli
from relvit_jax.training import preemption

pytestmark = pytest.mark.long


def wait_for(path, *processes):
  """Until the file is there, or one of the processes ended."""
  while not path.exists():
    for process in processes:
      assert process.poll() is None, process.communicate()
    time.sleep(0.01)


def stopped_at(errors):
  """The step that a run says it was stopped after."""
  found = re.search(r"stopped after step (\d+): told to by SIGTERM", errors)
  assert found, errors
  return int(found[1])


@pytest.mark.parametrize("feed", ["resident", "streaming"])
def test_a_run_that_is_told_to_stop_loses_no_step(
  feed, joint_run, tmp_path, capsys
):
  workdir = tmp_path / "run"
  words = typed("digits:joint", workdir, **RANDOM)
  # Its processes that decode are told too, as by a scheduler.
  extra = ["--config.data.feed=streaming", "--config.data.num_workers=2"]
  words += extra if feed == "streaming" else []
  process = subprocess.Popen(
    [sys.executable, "-m", "relvit_jax.cli", *words],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  wait_for(workdir / "checkpoints" / "20", process)
  told = time.monotonic()
  os.killpg(process.pid, signal.SIGTERM)
  _, errors = process.communicate(timeout=60)
  assert time.monotonic() - told < 10
  assert process.returncode == 128 + signal.SIGTERM
  step = stopped_at(errors)
  assert step >= 20
  assert (workdir / "checkpoints" / str(step)).is_dir()
  assert cli.main(words) == 0
  assert f"resumes at step {step} of 120" in capsys.readouterr().out
  ours = [
    {key: value for key, value in record.items() if key != "feed_wait_share"}
    for record in curve(workdir)
  ]
  if feed == "resident":
    assert ours == curve(joint_run)
  else:
    assert_alike(ours, curve(joint_run))


def test_two_processes_stop_together_when_one_is_told(
  joint_run, tmp_path, capsys
):
  workdir = tmp_path / "run"
  words = typed("digits:joint", workdir, **RANDOM)
  processes = two_processes.train(words)
  wait_for(workdir / "checkpoints" / "20", *processes)
  told = time.monotonic()
  processes[1].send_signal(signal.SIGTERM)
  said = two_processes.finish(processes, 60)
  assert time.monotonic() - told < 10
  assert [status for status, _, _ in said] == [128 + signal.SIGTERM] * 2, said
  steps = {stopped_at(errors) for _, _, errors in said}
  assert len(steps) == 1
  # The same line again goes on, here as one process.
  assert cli.main(words) == 0
  assert f"resumes at step {steps.pop()} of 120" in capsys.readouterr().out
  assert_alike(curve(workdir), curve(joint_run))


def test_items_end_when_told():
  asked = iter([False, False, True])
  items = preemption.unless(lambda: next(asked), "abc")
  assert [next(items), next(items)] == ["a", "b"]
  with pytest.raises(preemption.PreemptedError):
    next(items)
  assert list(preemption.unless(preemption.never, "abc")) == ["a", "b", "c"]


def test_the_signal_is_caught_inside_and_not_outside():
  before = signal.getsignal(signal.SIGTERM)
  with preemption.Notice() as stop:
    assert not stop()
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop()
    assert stop()
  assert signal.getsignal(signal.SIGTERM) is before


def test_a_thread_leaves_the_signal_alone():
  seen = []

  def work():
    with preemption.Notice() as stop:
      seen.append((stop(), signal.getsignal(signal.SIGTERM)))

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert seen == [(False, signal.getsignal(signal.SIGTERM))]
