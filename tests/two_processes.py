"""`relvit train` as two processes with four devices each, on this machine."""

import os
import socket
import subprocess
import sys


def free_port():
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    return found.getsockname()[1]


def start(program, *of_each):
  """Two processes that find each other; a list of words of each beside.

  Args:
    program: words after `python`, for both.
    *of_each: what only the first is told, and only the second.
  """
  address = f"127.0.0.1:{free_port()}"
  told = of_each or ([], [])
  return [
    subprocess.Popen(
      [
        sys.executable,
        *program,
        f"--coordinator_address={address}",
        "--num_processes=2",
        f"--process_id={process}",
        *told[process],
      ],
      env=os.environ | {"JAX_NUM_CPU_DEVICES": "4"},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for process in range(2)
  ]


def train(words, *of_each):
  return start(["-m", "relvit_jax.cli", *words], *of_each)


def finish(processes, timeout=240):
  """(exit status, output, errors) of each; none outlives this."""
  try:
    said = [process.communicate(timeout=timeout) for process in processes]
  finally:
    for process in processes:
      process.kill()
  return [
    (process.returncode, *texts)
    for process, texts in zip(processes, said, strict=True)
  ]
