"""launch/tpu_pod.sh: what is called after what, by a gcloud that is none."""

import tarfile

import fake_commands
import pytest
from tpu_pod import TRAIN, WHERE, Pod


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
  return fake_commands.clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture
def pod(tmp_path, clone):
  return Pod(tmp_path, clone)


ABSENT = [(0, "other ACTIVE")]
ACTIVE = [(0, "other SUSPENDED\npod ACTIVE")]
READY = [(0, "pod READY v5litepod-16")]


def hosts(*states):
  """What `status` says of four hosts, whose states are such as "0 0 0 143"."""
  return [
    (
      0,
      "\n".join(f"relvit h{i} {s}" for i, s in enumerate(states_now.split())),
    )
    for states_now in states
  ]


# What a call is for, by words that no other has.
CALLS = {
  "buckets describe": "bucket",
  "queued-resources list": "requests",
  "queued-resources create": "create",
  "queued-resources delete": "delete",
  "tpu-vm list": "machines",
  "tpu-vm scp": "copy",
  "tpu_host.sh setup": "setup",
  "tpu_host.sh train": "train",
  "tpu_host.sh status": "hosts",
}


def order(pod):
  return [
    next(what for words, what in CALLS.items() if words in " ".join(line))
    for line, _ in pod.commands.calls()
  ]


def told(**answers):
  words = {what: words for words, what in CALLS.items()}
  return {words["bucket"]: [(0, "True")]} | {
    words[what]: answer for what, answer in answers.items()
  }


@pytest.mark.parametrize(
  ("requests", "machines", "called"),
  [
    # Nothing, then waiting, then there.
    (
      [*ABSENT, (0, "pod WAITING_FOR_RESOURCES"), *ACTIVE],
      [(0, "pod CREATING v5litepod-16"), *READY],
      "create requests requests machines requests machines",
    ),
    (ACTIVE, READY, "machines"),
    ([(0, "pod PROVISIONING"), *ACTIVE], READY, "requests machines"),
    (
      [(0, "pod SUSPENDED"), *ACTIVE],
      READY,
      "delete create requests machines",
    ),
    ([(0, "pod FAILED"), *ACTIVE], READY, "delete create requests machines"),
    # Preempted, which its request does not know yet.
    (
      ACTIVE,
      [(0, "pod PREEMPTED v5litepod-16"), *READY],
      "machines delete create requests machines",
    ),
    # It is being deleted, and then it is not there.
    (
      [(0, "pod SUSPENDING"), (0, "pod DELETING"), *ABSENT, *ACTIVE],
      READY,
      "requests requests create requests machines",
    ),
  ],
)
def test_create_uses_what_is_there(requests, machines, called, pod):
  pod.commands.answer(told(requests=requests, machines=machines))
  status, _, errors = pod("create", "--poll=0")
  assert status == 0, errors
  assert order(pod) == ["bucket", "requests", *called.split()]


@pytest.mark.parametrize(
  ("answers", "message", "last"),
  [
    ({"bucket": [(0, "")]}, "must have a hierarchical namespace", "bucket"),
    ({"bucket": [(1, "")]}, "--bucket=lab-data cannot be read", "bucket"),
    # Not taken for "nothing is there".
    ({"requests": [(1, "")]}, "", "requests"),
    ({"requests": [(0, "pod ODD")]}, "is in state ODD", "requests"),
    (
      {"requests": [*ABSENT, (0, "pod FAILED")]},
      "the request failed; see why: gcloud compute tpus queued-resources "
      f"describe pod {WHERE}",
      "requests",
    ),
    (
      {"requests": ACTIVE, "machines": [(0, "pod STOPPED v5litepod-16")]},
      "the machines of pod are in state STOPPED",
      "machines",
    ),
    (
      {"requests": ACTIVE, "machines": [(0, "pod READY v5litepod-4")]},
      "pod is a v5litepod-4, and --topology=v5e:4x4 a v5litepod-16",
      "machines",
    ),
  ],
)
def test_what_create_cannot_use(answers, message, last, pod):
  pod.commands.answer(told(**answers))
  status, _, errors = pod("create", "--poll=0")
  assert status != 0
  assert message in errors
  assert order(pod)[-1] == last


@pytest.mark.parametrize(
  ("topology", "kind"),
  [
    ("v5e:4x8", "v5litepod-32"),
    ("v6e:2x4", "v6e-8"),
    ("v4:2x2x4", "v4-32"),
    ("v5p:2x2x1", "v5p-8"),
  ],
)
def test_the_cloud_has_another_name_for_a_topology(topology, kind, pod):
  machines = [(0, f"pod READY {kind}")]
  pod.commands.answer(told(requests=ACTIVE, machines=machines))
  status, _, errors = pod("create", f"--topology={topology}")
  assert status == 0, errors


RUNNING, ENDED = "running running", "0 0"
NO_ANSWER = [(255, "")]


@pytest.mark.parametrize(
  ("answers", "status", "called"),
  [
    # Nothing is there: all of it.
    (
      {
        "requests": [*ABSENT, *ACTIVE],
        "machines": READY,
        "hosts": hosts("absent absent", RUNNING, ENDED),
      },
      0,
      "bucket requests create requests machines hosts copy setup train "
      "hosts hosts",
    ),
    # The line again, while it trains: no code is changed, nothing is started.
    (
      {
        "requests": ACTIVE,
        "machines": READY,
        "hosts": hosts(RUNNING, RUNNING, ENDED),
      },
      0,
      "bucket requests machines hosts train hosts hosts",
    ),
    # Preempted: a host is told, then the slice is gone.
    (
      {
        "requests": [*ACTIVE, (0, "pod SUSPENDED"), *ACTIVE],
        "machines": READY,
        "hosts": [
          *hosts(RUNNING, "143 running", "143 143"),
          *NO_ANSWER,
          *hosts(ENDED),
        ],
      },
      0,
      "bucket requests machines hosts train hosts hosts "
      "bucket requests delete create requests machines hosts copy setup train "
      "hosts",
    ),
    # It is gone before anybody was told.
    (
      {
        "requests": [*ACTIVE, *[(0, "pod SUSPENDED")] * 3, *ACTIVE],
        "machines": READY,
        "hosts": [*hosts(RUNNING), *NO_ANSWER, *NO_ANSWER, *hosts(ENDED)],
      },
      0,
      "bucket requests machines hosts train hosts requests requests "
      "bucket requests delete create requests machines hosts copy setup train "
      "hosts",
    ),
    # A host that started anew makes the others fail: no error of ours.
    (
      {
        "requests": ACTIVE,
        "machines": READY,
        "hosts": hosts(RUNNING, "absent 134", "absent 134", ENDED),
      },
      0,
      "bucket requests machines hosts train hosts "
      "bucket requests machines hosts copy setup train hosts",
    ),
    # Only the connection was lost.
    (
      {
        "requests": ACTIVE,
        "machines": READY,
        "hosts": [*hosts(RUNNING), *NO_ANSWER, *hosts(RUNNING, ENDED)],
      },
      0,
      "bucket requests machines hosts train hosts requests machines hosts "
      "hosts",
    ),
    # An error is not tried again.
    (
      {
        "requests": ACTIVE,
        "machines": READY,
        "hosts": hosts("absent absent", "0 2"),
      },
      2,
      "bucket requests machines hosts copy setup train hosts requests machines",
    ),
    (
      {
        "requests": ACTIVE,
        "machines": READY,
        "hosts": hosts("absent absent"),
        "setup": [(1, "")],
      },
      1,
      "bucket requests machines hosts copy setup requests machines",
    ),
  ],
)
def test_run_goes_on_until_the_training_has_ended(answers, status, called, pod):
  pod.commands.answer(told(**answers))
  ended, _, errors = pod("run", "--poll=0", "--", *TRAIN)
  assert ended == status, errors
  assert order(pod) == called.split()


def test_what_is_copied_is_the_last_commit(pod):
  pod.commands.answer({})
  assert pod("setup")[0] == 0
  with tarfile.open(pod.clone / "build" / "relvit_jax.tar.gz") as archive:
    assert "launch/tpu_host.sh" in archive.getnames()
  new = pod.clone / "mine.py"
  new.write_text("")
  pod.commands.answer({})
  status, _, errors = pod("setup")
  new.unlink()
  assert status == 2
  assert "commit first" in errors
  assert pod.commands.calls() == []
