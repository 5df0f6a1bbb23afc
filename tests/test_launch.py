"""launch/tpu_pod.sh prints what it would call, and refuses what cannot be.

And what launch/README.md shows is accepted.
"""

import re
import shlex
import subprocess

import fake_commands
import pytest
from tpu_pod import TRAIN, WHERE, Pod


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
  return fake_commands.clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture
def pod(tmp_path, clone):
  return Pod(tmp_path, clone)


READ = (fake_commands.ROOT / "launch" / "README.md").read_text(encoding="utf-8")

BUCKET = (
  "gcloud storage buckets describe gs://lab-data --project=lab "
  "--format='value(hierarchical_namespace.enabled)'"
)
REQUESTS = (
  "gcloud compute tpus queued-resources list "
  f"--format='value(name.basename(),state.state)' {WHERE}"
)
SSH = (
  f"gcloud compute tpus tpu-vm ssh pod {WHERE} --worker=all "
  "--ssh-flag='-o ServerAliveInterval=30' --command="
)
STATUS = (
  f"{SSH}'if [ -d relvit_jax ]; then bash relvit_jax/launch/tpu_host.sh "
  "status; else echo relvit $(hostname) absent; fi'"
)
SETUP = [
  "mkdir -p build",
  "git archive --format=tar.gz --output=build/relvit_jax.tar.gz COMMIT",
  "gcloud compute tpus tpu-vm scp build/relvit_jax.tar.gz "
  f"pod:relvit_jax.tar.gz {WHERE} --worker=all",
  f"{SSH}'rm -rf relvit_jax.new && mkdir relvit_jax.new && tar -xzf "
  "relvit_jax.tar.gz -C relvit_jax.new && bash "
  "relvit_jax.new/launch/tpu_host.sh setup lab-data COMMIT'",
]
START = (
  f"{SSH}'bash relvit_jax/launch/tpu_host.sh train --config=digits:pretrain "
  "--workdir=/mnt/relvit/runs/a'"
)


def create(*flags):
  return " ".join(
    [
      "gcloud compute tpus queued-resources create pod --node-id=pod",
      *flags,
      WHERE,
    ]
  )


V5E = create(
  "--accelerator-type=v5litepod-16",
  "--runtime-version=v2-alpha-tpuv5-lite",
  "--valid-until-duration=1d",
)


@pytest.mark.parametrize(
  ("words", "printed"),
  [
    (["create"], [BUCKET, REQUESTS, V5E]),
    (
      ["create", "--topology=v6e:16x16", "--spot", "--valid_until=6h"],
      [
        BUCKET,
        REQUESTS,
        create(
          "--accelerator-type=v6e-256",
          "--runtime-version=v2-alpha-tpuv6e",
          "--spot",
          "--valid-until-duration=6h",
        ),
      ],
    ),
    (
      ["create", "--topology=v4:2x2x4", "--reserved"],
      [
        BUCKET,
        REQUESTS,
        create(
          "--type=v4",
          "--topology=2x2x4",
          "--runtime-version=tpu-ubuntu2204-base",
          "--reserved",
          "--valid-until-duration=1d",
        ),
      ],
    ),
    (
      ["create", "--topology=v5p:4x4x4", "--runtime_version=new"],
      [
        BUCKET,
        REQUESTS,
        create(
          "--type=v5p",
          "--topology=4x4x4",
          "--runtime-version=new",
          "--valid-until-duration=1d",
        ),
      ],
    ),
    (["setup"], SETUP),
    (["train", "--", *TRAIN], [START]),
    (
      ["logs"],
      [
        SSH.replace("=all", "=0")
        + "'sudo journalctl --unit=relvit --output=cat "
        "--lines=200 --follow'"
      ],
    ),
    (
      ["status"],
      [
        REQUESTS.replace(" --format='value(name.basename(),state.state)'", ""),
        STATUS,
      ],
    ),
    (
      ["delete"],
      [
        "gcloud compute tpus queued-resources delete pod --force --quiet "
        + WHERE
      ],
    ),
    *[
      (
        [command, "--", *TRAIN],
        [BUCKET, REQUESTS, REQUESTS, V5E, STATUS, *SETUP, START, STATUS],
      )
      for command in ("run", "resume")
    ],
  ],
)
def test_a_dry_run_prints_the_commands_and_calls_none(words, printed, pod):
  command, *rest = words
  status, output, errors = pod(command, "--dry_run", *rest)
  assert (status, errors) == (0, "")
  told = output.replace(pod.commit, "COMMIT")
  assert told.splitlines() == printed
  assert pod.commands.calls() == []


def test_what_is_printed_can_be_pasted(pod):
  odd = "--config.data.splits.train=train[:90%] or 'a'"
  _, output, _ = pod("train", "--dry_run", "--", *TRAIN, odd)
  *_, told = shlex.split(output)
  # Once more, as the shell of the host does.
  assert shlex.split(told.removeprefix("--command="))[-3:] == [*TRAIN, odd]


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["begin"], "'begin' must be create, setup, train, logs, status, run,"),
    (["create", "--zone=us-west4"], "--zone='us-west4' must be a zone, such"),
    (["create", "--project="], "--project='' must be the ID of a project"),
    (["delete", "--name=Pod"], "--name='Pod' must be lower-case letters"),
    (["create", "--topology=v5e:3x3"], "--topology='v5e:3x3' must be v5e or"),
    (["create", "--topology=v4:4x4"], "--topology='v4:4x4' must be v5e or"),
    (["setup", "--bucket=gs://a"], "--bucket='gs://a' must be the name of a"),
    (["create", "--valid_until=6"], "--valid_until='6' must be a number of s"),
    (["logs", "--worker=x"], "--worker='x' must be the number of a host, or"),
    (["run", "--poll=1m"], "--poll='1m' must be a number of seconds"),
    (["create", "--spot", "--reserved"], "there can be one of --spot and"),
    (["create", "--preemptible"], "there is no flag '--preemptible'"),
    (["train"], "relvit train needs -- --config=… --workdir=/mnt/relvit/…"),
    (["train", "--", TRAIN[0]], "it got '--config=digits:pretrain'"),
    (
      ["run", "--", "--config=digits:pretrain", "--workdir=runs/a"],
      "--workdir=runs/a must lie in /mnt/relvit/, the bucket",
    ),
    (["logs", "--", "a"], "logs takes no words after --"),
  ],
)
def test_bad_input_is_refused_before_anything_is_called(words, message, pod):
  status, output, errors = pod(*words)
  assert (status, output) == (2, "")
  assert message in errors
  assert pod.commands.calls() == []


def lines(program):
  """Commands of a program in launch/README.md, continued lines joined."""
  blocks = re.findall(r"```sh\n(.*?)```", READ, re.DOTALL)
  every = "\n".join(blocks).replace("\\\n", " ").splitlines()
  return [line for line in every if program in line]


def test_the_readme_has_a_line_for_every_command():
  used = {shlex.split(line)[2] for line in lines("launch/tpu_pod.sh")}
  # resume is run by another name.
  assert used == {"setup", "create", "train", "logs", "status", "run", "delete"}


@pytest.mark.parametrize("line", lines("launch/tpu_pod.sh"))
def test_commands_of_the_readme_are_accepted(line, pod):
  """With what the README exports before."""
  exports = dict(re.findall(r"export (\w+)=(\S+)", READ))
  _, _, command, *rest = shlex.split(line)
  status, output, errors = pod(command, "--dry_run", *rest, **exports)
  assert status == 0, errors
  assert "gcloud " in output


@pytest.mark.parametrize("line", lines("launch/slurm.sh"))
def test_jobs_of_the_readme_are_accepted(line, clone):
  words = line.split("launch/slurm.sh")[1]
  done = subprocess.run(
    ["bash", "launch/slurm.sh", "--dry_run", *shlex.split(words)],
    cwd=clone,
    capture_output=True,
    text=True,
    check=True,
  )
  assert ".venv/bin/relvit train --config=" in done.stdout
