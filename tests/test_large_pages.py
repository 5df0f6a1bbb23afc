"""When a command starts itself again to get large pages."""

import subprocess
import sys

import pytest

from relvit_jax import large_pages

ASKED = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
WAITS = "always [madvise] never\n"


@pytest.mark.parametrize(
  ("given", "setting", "has_accelerator", "changed"),
  [
    ({}, WAITS, False, ASKED),
    ({}, "[always] madvise never\n", False, {}),
    ({}, "always madvise [never]\n", False, {}),
    ({}, "", False, {}),
    ({}, WAITS, True, {}),
    ({"JAX_PLATFORMS": "cpu"}, WAITS, True, ASKED),
    (ASKED, WAITS, False, {}),
    ({"GLIBC_TUNABLES": ""}, WAITS, False, {}),
  ],
)
def test_where_they_help(given, setting, has_accelerator, changed):
  assert large_pages.environment(given, setting, has_accelerator) == changed


AGAIN = """\
import os, sys
from relvit_jax import large_pages

asked = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
large_pages.environment = lambda given, *_: (
  {} if "GLIBC_TUNABLES" in given else asked
)
print("begins", flush=True)
large_pages.start_with()
print(os.environ["GLIBC_TUNABLES"], *sys.argv)
"""


def test_a_process_begins_again_once_with_its_arguments(monkeypatch):
  monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
  done = subprocess.run(
    [sys.executable, "-c", AGAIN, "one", "two words"],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.splitlines() == [
    "begins",
    "begins",
    "glibc.malloc.hugetlb=1 -c one two words",
  ]
