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
  "tpu_host.sh keep": "keep",
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
LOST = [(0, "pod SUSPENDED")]
FAILS = [(1, "")]


@pytest.mark.parametrize(
  ("answers", "status", "called"),
  [
    # Nothing is there: all of it.
    (
      {
        "requests": [*ABSENT, *ABSENT, *ACTIVE],
        "machines": READY,
        "hosts": hosts("absent absent", RUNNING, ENDED),
      },
      0,
      "requests requests create requests machines hosts copy setup train "
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
      "requests machines hosts requests machines train hosts hosts",
    ),
    # Preempted: a host is told, then the slice is gone.
    (
      {
        "requests": [*ACTIVE, *ACTIVE, *LOST, *LOST, *ACTIVE],
        "machines": READY,
        "hosts": [
          *hosts(RUNNING, "143 running", "143 143"),
          *NO_ANSWER,
          *hosts(ENDED),
        ],
      },
      0,
      "requests machines hosts requests machines train hosts hosts requests "
      "requests delete create requests machines hosts copy setup train hosts",
    ),
    # It is gone before anybody was told.
    (
      {
        "requests": [*ACTIVE, *ACTIVE, *LOST * 3, *ACTIVE],
        "machines": READY,
        "hosts": [*hosts(RUNNING), *NO_ANSWER, *NO_ANSWER, *hosts(ENDED)],
      },
      0,
      "requests machines hosts requests machines train hosts requests requests "
      "requests delete create requests machines hosts copy setup train hosts",
    ),
    # A host that started anew makes the others fail: no error of ours.
    (
      {
        "requests": ACTIVE,
        "machines": READY,
        "hosts": hosts(RUNNING, "absent 134", "absent 134", ENDED),
      },
      0,
      "requests machines hosts requests machines train hosts requests machines "
      "requests machines hosts copy setup train hosts",
    ),
    # Only the connection to the hosts was lost.
    (
      {
        "requests": ACTIVE,
        "machines": READY,
        "hosts": [*hosts(RUNNING), *NO_ANSWER, *hosts(RUNNING, ENDED)],
      },
      0,
      "requests machines hosts requests machines train hosts requests machines "
      "hosts hosts",
    ),
    # Or all connections, for as long as three questions.
    (
      {
        "requests": [*ACTIVE, *ACTIVE, *FAILS, *FAILS, *ACTIVE],
        "machines": READY,
        "hosts": [*hosts(RUNNING), *NO_ANSWER, *NO_ANSWER, *hosts(ENDED)],
      },
      0,
      "requests machines hosts requests machines train hosts requests hosts "
      "requests hosts",
    ),
    # And while a lost slice is requested again.
    (
      {
        "requests": [*ACTIVE, *ACTIVE, *LOST, *FAILS, *LOST, *ABSENT, *ACTIVE],
        "machines": READY,
        "hosts": hosts(RUNNING, "143 143", "absent absent", ENDED),
        "create": [*FAILS, (0, "")],
      },
      0,
      "requests machines hosts requests machines train hosts requests requests "
      "requests delete create requests create requests machines hosts copy "
      "setup train hosts",
    ),
    # An error is not tried again.
    (
      {
        "requests": ACTIVE,
        "machines": READY,
        "hosts": hosts("absent absent", "absent absent", "0 2"),
      },
      2,
      "requests machines hosts requests machines hosts copy setup train hosts "
      "requests machines",
    ),
    # What may fail once is: three times.
    (
      {
        "requests": ACTIVE,
        "machines": READY,
        "hosts": hosts("absent absent", "absent absent", ENDED),
        "setup": [*FAILS, (0, "")],
        "train": [*FAILS, *FAILS, (0, "")],
      },
      0,
      "requests machines hosts requests machines hosts "
      "copy setup requests machines copy setup "
      "train requests machines train requests machines train hosts",
    ),
    (
      {
        "requests": ACTIVE,
        "machines": READY,
        "hosts": hosts("absent absent"),
        "setup": FAILS,
      },
      1,
      "requests machines hosts requests machines hosts "
      + 3 * "copy setup requests machines "
      + "requests machines",
    ),
  ],
)
def test_run_goes_on_until_the_training_has_ended(answers, status, called, pod):
  pod.commands.answer(told(**answers))
  ended, _, errors = pod("run", "--poll=0", "--", *TRAIN)
  assert ended == status, errors
  assert order(pod) == ["bucket", *called.split()]
  # Whatever is left is named.
  assert "delete, or it costs on" in errors


@pytest.mark.parametrize(("found", "status"), [(ENDED, 0), ("0 2", 2)])
def test_nothing_is_left_if_it_is_so_asked(found, status, pod):
  answers = {"requests": ACTIVE, "machines": READY}
  pod.commands.answer(told(**answers, hosts=hosts(RUNNING, found)))
  ended, _, errors = pod("run", "--poll=0", "--delete", "--", *TRAIN)
  assert ended == status, errors
  assert order(pod)[-2:] == ["keep", "delete"]
  assert "costs on" not in errors


def test_what_stops_a_run_in_between_says_what_costs_on(pod):
  pod.commands.answer(told(requests=[*ABSENT, (0, "pod FAILED")]))
  status, _, errors = pod("run", "--poll=0", "--delete", "--", *TRAIN)
  assert status == 2
  assert "what is there costs on; launch/tpu_pod.sh status, delete" in errors
  assert "keep" not in order(pod)


def test_a_run_is_of_one_commit(pod):
  """That of the hosts, whatever was committed and changed here since."""
  new = pod.clone / "later.py"
  new.write_text("")
  first = pod.commit
  fake_commands.commit_all(pod.clone, "Another")
  assert fake_commands.commit(pod.clone) != first
  running = [(0, f"relvit h0 running {first}")]
  pod.commands.answer(
    told(
      requests=[*ACTIVE, *ACTIVE, *LOST, *LOST, *ACTIVE],
      machines=READY,
      hosts=[*running, *hosts("143", "absent", ENDED)],
    )
  )
  (pod.clone / "another.py").write_text("")
  status, _, errors = pod("run", "--poll=0", "--", *TRAIN)
  (pod.clone / "another.py").unlink()
  assert status == 0, errors
  copies = [line[-1] for line, _ in pod.commands.calls() if "setup" in line[-1]]
  assert [words.split()[-1] for words in copies] == [first]
  with tarfile.open(pod.clone / "build" / "relvit_jax.tar.gz") as archive:
    assert "later.py" not in archive.getnames()


def test_hosts_of_another_clone_are_let_be(pod):
  pod.commands.answer(
    told(
      requests=ACTIVE,
      machines=READY,
      hosts=[(0, f"relvit h0 running {40 * 'a'}")],
    )
  )
  status, _, errors = pod("run", "--poll=0", "--", *TRAIN)
  assert status == 2
  assert f"the hosts train commit {40 * 'a'}, which is not in this" in errors


def test_nothing_is_rented_for_what_is_not_committed(pod):
  new = pod.clone / "mine.py"
  new.write_text("")
  pod.commands.answer(told(requests=ABSENT))
  status, _, errors = pod("run", "--poll=0", "--", *TRAIN)
  new.unlink()
  assert status == 2
  assert "commit first" in errors
  assert order(pod) == ["bucket", "requests"]


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
