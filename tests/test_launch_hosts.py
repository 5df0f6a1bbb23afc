"""What runs where the training runs: launch/slurm.sh and launch/tpu_host.sh."""

import signal
import subprocess
import time

import fake_commands
import pytest

TRAIN = ["--config=digits:pretrain", "--workdir=runs/a"]


@pytest.fixture
def job(tmp_path):
  """Starts the batch script, whose tasks are this shell script."""
  commands = fake_commands.Commands(tmp_path, "scontrol")
  clone = fake_commands.clone(tmp_path / "clone")
  relvit = clone / ".venv" / "bin" / "relvit"
  relvit.parent.mkdir(parents=True)
  srun = tmp_path / "commands" / "bin" / "srun"
  srun.write_text('#!/bin/sh\nshift\nexec "$@"\n')

  def start(task, *words, **environment):
    relvit.write_text(f'#!/bin/bash\necho "task: $*"\n{task}\n')
    for program in (relvit, srun):
      program.chmod(0o755)
    told = {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(clone)} | environment
    # SLURM runs a copy that lies elsewhere.
    return subprocess.Popen(
      ["bash", str(clone / "launch" / "slurm.sh"), *words],
      cwd=tmp_path,
      env=commands.environment(**told),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  start.commands = commands
  return start


REQUEUE = ["scontrol", "requeue", "Incomplete", "7"]


@pytest.mark.parametrize(
  ("status", "called"), [(0, []), (143, [REQUEUE]), (1, []), (137, [])]
)
def test_a_job_that_was_told_to_stop_queues_again(status, called, job):
  process = job(f"exit {status}", *TRAIN)
  output, _ = process.communicate(timeout=30)
  assert process.returncode == status
  first = f"task: train {TRAIN[0]} {TRAIN[1]}"
  assert output.splitlines()[0] == first
  assert [line for line, _ in job.commands.calls()] == called


def test_the_batch_shell_outlives_its_tasks(job, tmp_path):
  """`scancel` tells it as well as them."""
  process = job(f"touch {tmp_path}/began; sleep 0.3; exit 143", *TRAIN)
  while not (tmp_path / "began").exists():
    assert process.poll() is None
    time.sleep(0.01)
  process.send_signal(signal.SIGTERM)
  process.communicate(timeout=30)
  assert process.returncode == 143
  assert [line for line, _ in job.commands.calls()] == [REQUEUE]


def test_a_step_gets_the_cores_that_sbatch_asked_for(job):
  task = 'echo "cores: ${SRUN_CPUS_PER_TASK-none}"'
  for given, cores in (({"SLURM_CPUS_PER_TASK": "6"}, "6"), ({}, "none")):
    output, _ = job(task, *TRAIN, **given).communicate(timeout=30)
    assert output.splitlines()[-1] == f"cores: {cores}"


@pytest.mark.parametrize(
  ("words", "environment", "message"),
  [
    ([TRAIN[1]], {}, "--config=… is missing"),
    ([TRAIN[0], "--workdir="], {}, "--workdir=… is missing"),
    (TRAIN, {"SLURM_JOB_ID": ""}, "this is no job; submit it: sbatch"),
    (TRAIN, {"SLURM_SUBMIT_DIR": "/"}, "/ has no .venv/bin/relvit"),
  ],
)
def test_a_job_that_cannot_be(words, environment, message, job):
  process = job("exit 0", *words, **environment)
  output, errors = process.communicate(timeout=30)
  assert (process.returncode, output) == (2, "")
  assert message in errors


def test_a_dry_job_prints_its_commands(job):
  process = job("exit 1", "--dry_run", *TRAIN, SLURM_JOB_ID="")
  output, _ = process.communicate(timeout=30)
  assert process.returncode == 0
  assert output.splitlines() == [
    "sbatch launch/slurm.sh --config=digits:pretrain --workdir=runs/a",
    "srun --kill-on-bad-exit=0 .venv/bin/relvit train "
    "--config=digits:pretrain --workdir=runs/a",
  ]
  assert job.commands.calls() == []


@pytest.fixture
def host(tmp_path):
  """Runs launch/tpu_host.sh as on a host that has unpacked the clone."""
  commands = fake_commands.Commands(
    tmp_path, "sudo", "systemctl", "systemd-escape", "gcsfuse", "hostname"
  )
  fake_commands.clone(tmp_path / "relvit_jax.new")
  script = tmp_path / "relvit_jax.new" / "launch" / "environment.sh"
  script.write_text('echo "accelerator: $RELVIT_ACCELERATOR"\n')

  def run(*words, unit=("dead", "0", "0"), about="", clone="relvit_jax.new"):
    shown = ("SubState", "ExecMainCode", "ExecMainStatus", "Description")
    commands.answer(
      {
        f"--property={key}": [(0, value)]
        for key, value in zip(shown, (*unit, about), strict=True)
      }
      | {"hostname": [(0, "h0")], "systemd-escape": [(0, "mnt-relvit.mount")]}
    )
    words = ["bash", f"{clone}/launch/tpu_host.sh", *words]
    return commands.run(words, tmp_path, HOME=str(tmp_path))

  run.commands, run.home = commands, tmp_path
  return run


@pytest.mark.parametrize(
  ("unit", "state"),
  [
    (("dead", "0", "0"), "absent"),
    (("running", "0", "0"), "running"),
    (("stop-sigterm", "0", "0"), "running"),
    (("exited", "1", "0"), "0"),
    (("failed", "1", "143"), "143"),
    (("failed", "1", "2"), "2"),
    # By a signal: before the first step, and for want of memory.
    (("exited", "2", "15"), "143"),
    (("failed", "2", "9"), "137"),
  ],
)
def test_the_state_of_a_host(unit, state, host):
  # Nothing is installed, and what is was of a commit.
  assert host("status", unit=unit)[:2] == (0, f"relvit h0 {state} \n")
  (host.home / "relvit_jax").mkdir()
  (host.home / "relvit_jax" / ".commit").write_text("abc\n")
  assert host("status", unit=unit)[:2] == (0, f"relvit h0 {state} abc\n")


def test_training_is_a_service(host):
  assert host("train", *TRAIN)[0] == 0
  home = str(host.home)
  (*_, line) = [line for line, _ in host.commands.calls() if line[0] == "sudo"]
  assert line[1:5] == [
    "systemd-run",
    "--quiet",
    "--unit=relvit",
    "--description=relvit train --config=digits:pretrain --workdir=runs/a",
  ]
  assert {
    "--property=RemainAfterExit=yes",
    "--property=RequiresMountsFor=/mnt/relvit",
    "--property=KillMode=mixed",
    "--property=TimeoutStopSec=25",
    "--setenv=JAX_COMPILATION_CACHE_DIR=/mnt/relvit/compiled",
    f"--working-directory={home}/relvit_jax",
  } <= set(line)
  program = f"{home}/relvit_jax/.venv/bin/relvit"
  assert line[line.index(program) :] == [program, "train", *TRAIN]


@pytest.mark.parametrize(
  ("about", "status", "message"),
  [
    (f"relvit train {TRAIN[0]} {TRAIN[1]}", 0, "It runs already: relvit train"),
    ("relvit train --config=b", 2, "another training runs: relvit train"),
  ],
)
def test_what_runs_is_not_started_again(about, status, message, host):
  running = ("running", "0", "0")
  ended, *said = host("train", *TRAIN, unit=running, about=about)
  assert ended == status
  assert message in "".join(said)
  assert "sudo" not in {line[0] for line, _ in host.commands.calls()}


def test_setup_mounts_the_bucket_and_installs(host):
  old = host.home / "relvit_jax"
  (old / ".venv").mkdir(parents=True)
  (old / "gone.py").write_text("")
  status, output, errors = host("setup", "lab-data", "abc")
  assert status == 0, errors
  assert output.splitlines()[-1] == "accelerator: tpu"
  assert (old / ".venv").is_dir()
  assert (old / ".commit").read_text() == "abc\n"
  assert not (old / "gone.py").exists()
  assert not (host.home / "relvit_jax.new").exists()
  fed = {tuple(line[1:]): text for line, text in host.commands.calls()}
  table = fed["tee", "--append", "/etc/fstab"].split()
  assert table[:3] == ["lab-data", "/mnt/relvit", "gcsfuse"]
  assert "config_file=/etc/relvit-gcsfuse.yaml" in table[3].split(",")
  # Hosts see at once what another has written.
  caches = fed["tee", "/etc/relvit-gcsfuse.yaml"].splitlines()
  assert [line.strip() for line in caches if "ttl" in line] == [
    "ttl-secs: 0",
    "negative-ttl-secs: 0",
    "kernel-list-cache-ttl-secs: 0",
  ]
  assert ("systemctl", "restart", "mnt-relvit.mount") in fed


def test_code_is_not_changed_under_a_training(host):
  status, _, errors = host(
    "setup", "lab-data", "abc", unit=("running", "0", "0")
  )
  assert status == 2
  assert "the training runs" in errors
  assert (host.home / "relvit_jax.new").exists()


def test_a_python_that_is_too_old_is_passed_by(host):
  """The host's says so, and gets uv by its pip; uv has found another."""
  found = host.home / "found" / "python3"
  uv = host.home / ".local" / "bin" / "uv"
  old = host.home / "commands" / "bin" / "python3"
  uv.parent.mkdir(parents=True)
  found.parent.mkdir()
  old.write_text(
    "#!/bin/sh\n"
    'case "$1" in -c) exit 1 ;; esac\n'
    f'printf "#!/bin/sh\\necho {found}\\n" > {uv}; chmod +x {uv}\n'
  )
  old.chmod(0o755)
  environment = host.home / "relvit_jax.new" / "launch" / "environment.sh"
  environment.write_text('echo "$PATH"\n')
  _, output, errors = host("setup", "lab-data", "abc")
  assert output.splitlines()[-1].startswith(f"{found.parent}:"), errors


def test_what_was_printed_is_kept(host):
  assert host("keep", str(host.home / "kept" / "pod"))[0] == 0
  [file] = (host.home / "kept" / "pod").iterdir()
  assert file.name.startswith("h0-")
  assert ["sudo", "journalctl", "--unit=relvit", "--output=short-iso"] in [
    line for line, _ in host.commands.calls()
  ]
