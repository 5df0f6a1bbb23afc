"""Several processes that train as one: how they meet, and what they agree on.

Each host of a TPU slice, or each task of a SLURM job, runs the same command.
JAX connects them; every device of every process is then in one mesh, and a
process that goes another way than the others would make them wait for ever, or
compute what nobody asked for. So they compare what they were told before the
first step, and what one of them cannot do, none begins.
"""

from __future__ import annotations

import glob
import http.client
import importlib.util
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

Result = TypeVar("Result")

# A process that is not heard of for so long is taken for dead, and all others
# end: seconds. JAX's default of 100 is much to wait for on rented chips.
_HEARTBEAT = 30
# By how much the first process outlives those that fail as it does: seconds.
_LAST = 2
# What Linux calls a TPU.
_TPUS = ("/dev/accel*", "/dev/vfio/[0-9]*")
# Before each request of the metadata, which is busy where a machine is new:
# seconds.
_WAITS = (0, 1, 2, 4, 8)
_METADATA = "http://{}/computeMetadata/v1/instance/attributes/{}"


def start(
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Connects the processes of this run, before any device is started.

  Without arguments they are found: the tasks of a SLURM step, the hosts of a
  TPU slice. Where there is but one, nothing happens.

  Args:
    coordinator_address: HOST:PORT of process 0, as all others reach it.
    num_processes: how many there are.
    process_id: which of them this is, from 0.

  Raises:
    ValueError: a SLURM step has tasks that its GPUs cannot be shared among.
    OSError: the other processes were not found in time, or the cloud does not
      say whether there are any.
  """
  options: dict[str, Any] = {}
  if coordinator_address is not None:
    options = {
      "coordinator_address": coordinator_address,
      "num_processes": num_processes,
      "process_id": process_id,
      "cluster_detection_method": "deactivate",
    }
  elif slurm_tasks(os.environ) > 1:
    options["local_device_ids"] = slurm_devices(os.environ)
  elif not (_has_tpu() and tpu_hosts(os.environ) > 1):
    return
  try:
    jax.distributed.initialize(**options, heartbeat_timeout_seconds=_HEARTBEAT)
  except RuntimeError as error:
    raise OSError(f"the processes of the run did not meet: {error}") from error


def slurm_tasks(environment: Mapping[str, str]) -> int:
  """Of the SLURM step that this process is a task of; 1 outside of one.

  The shell of a batch script or of `salloc` is no such task: `srun` starts
  them.
  """
  if "SLURM_STEP_NODELIST" not in environment:
    return 1
  return int(environment.get("SLURM_STEP_NUM_TASKS", 1))


def slurm_devices(environment: Mapping[str, str]) -> list[int] | None:
  """The GPUs of this task of a SLURM step; None where there are none.

  JAX gives each task one, and would leave the others of the node idle.

  Raises:
    ValueError: the node's GPUs cannot be shared evenly among its tasks.
  """
  gpus = int(environment.get("SLURM_GPUS_ON_NODE", 0))
  if not gpus:
    return None
  tasks = _tasks_on_node(environment)
  if gpus % tasks:
    raise ValueError(
      f"SLURM_GPUS_ON_NODE={gpus} GPUs cannot be shared evenly by the "
      f"{tasks} tasks of this node: ask for --ntasks-per-node={gpus}, or 1"
    )
  share = gpus // tasks
  visible = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
  # With --gpus-per-task a task sees its own alone, counted from 0.
  first = int(environment["SLURM_LOCALID"]) * share
  if len(visible) == share:
    first = 0
  return list(range(first, first + share))


def _tasks_on_node(environment: Mapping[str, str]) -> int:
  """By SLURM's list of tasks by node, such as 4(x2),3."""
  counts: list[int] = []
  for part in environment["SLURM_STEP_TASKS_PER_NODE"].split(","):
    tasks, _, nodes = part.rstrip(")").partition("(x")
    counts += [int(tasks)] * int(nodes or 1)
  return counts[int(environment["SLURM_NODEID"])]


def tpu_hosts(environment: Mapping[str, str]) -> int:
  """Of the TPU slice of this machine, by its environment or its metadata."""
  names = environment.get("TPU_PROCESS_ADDRESSES") or environment.get(
    "TPU_WORKER_HOSTNAMES"
  )
  slices = environment.get("MEGASCALE_NUM_SLICES", "1")
  if names is None and "TPU_SKIP_MDS_QUERY" not in environment:
    server = environment.get("GCE_METADATA_IP", "metadata.google.internal")
    names = _metadata(server, "worker-network-endpoints")
  return len((names or "one").split(",")) * int(slices)


def _has_tpu() -> bool:
  installed = importlib.util.find_spec("libtpu") is not None
  return installed and any(map(glob.glob, _TPUS))


def _metadata(server: str, name: str) -> str | None:
  """An attribute of a machine of Google's cloud; None where there is none.

  A server that is busy, or too slow, is asked again: a host of a slice that
  went on alone would let all others wait for it. One that never answers is
  taken for none, as in a notebook whose network is closed.

  Raises:
    OSError: the server is there, and does not say.
  """
  request = urllib.request.Request(
    _METADATA.format(server, name), headers={"Metadata-Flavor": "Google"}
  )
  problem: Exception | None = None
  for wait in _WAITS:
    time.sleep(wait)
    try:
      with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read().decode()
    except urllib.error.HTTPError as error:
      error.close()
      if error.code == 404:
        return None
      problem = error
    except (OSError, http.client.HTTPException) as error:
      reason = getattr(error, "reason", error)
      if isinstance(reason, (socket.gaierror, ConnectionRefusedError)):
        return None
  if problem:
    raise OSError(f"{request.full_url} does not say: {problem}") from problem
  return None


def is_first() -> bool:
  """Whether this process is the one that tells and writes down."""
  return jax.process_index() == 0


def several() -> bool:
  """Whether this process is one of several."""
  return jax.process_count() > 1


def gather(value: Any) -> list[Any]:
  """The JSON values of all processes, in their order, on each of them."""
  if not several():
    return [value]
  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  lengths = multihost_utils.process_allgather(np.array([len(text)], np.int32))
  room = np.zeros(int(np.max(lengths)), np.uint8)
  room[: len(text)] = text
  rows = np.asarray(multihost_utils.process_allgather(room))
  return [
    json.loads(row[:length].tobytes())
    for row, length in zip(rows, np.ravel(lengths), strict=True)
  ]


def together(work: Callable[[], Result]) -> Result:
  """Does what each process does for itself, and fails on all if on any.

  Raises:
    ValueError: of the work here, or what it said elsewhere, with the process.
    FileNotFoundError: of the work here.
  """
  mine, result = None, None
  try:
    result = work()
  except (ValueError, OSError) as error:
    mine = error
  said = gather(None if mine is None else str(mine))
  if mine is not None:
    raise mine
  for process, problem in enumerate(said):
    if problem is not None:
      raise ValueError(f"process {process} cannot begin: {problem}")
  return result  # pyright: ignore[reportReturnType]


def check_same(what: Mapping[str, Any]) -> None:
  """Raises unless all processes say the same.

  Args:
    what: JSON values by name.

  Raises:
    ValueError: names what differs, with two of the values.
  """
  first, *others = gather(dict(what))
  for process, theirs in enumerate(others, 1):
    for name in first.keys() | theirs.keys():
      ours, other = first.get(name), theirs.get(name)
      if ours != other:
        raise ValueError(
          f"the processes of a run must be told the same: {name} is {ours!r} "
          f"for process 0 and {other!r} for process {process}"
        )


def leave(status: int) -> None:
  """Ends this process, one of several, at once.

  What failed here alone the others do not know of. They would wait for this
  process, and it, as JAX ends, for them; so they are told by its absence. What
  failed on all ends with its own status on all, as the first process, without
  which no other lives, is the last to go.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  if is_first():
    time.sleep(_LAST)
  os._exit(status)
