"""Compiled programs kept on disk, so that a second start compiles none.

JAX runs what it finds in that folder: whoever may write there may run code as
the user. So ours is private, and one that others may write to is not used.
"""

from __future__ import annotations

import os
import pathlib
import stat
import sys
import zlib
from typing import Any

import jax

# JAX itself deletes nothing unless it is given a bound, and then needs a lock
# for every read and write.
MAX_BYTES = 2**30

_ENTRIES = "*-cache"
_TIDIED = "tidied"  # When that was, as its time of modification.
_ZLIB = b"\x78"  # The first byte; JAX compresses by zstd where it can.
# JAX keeps nothing that compiled within a second, which most programs do.
_MIN_SECONDS = "jax_persistent_cache_min_compile_time_secs"


def enable() -> pathlib.Path | None:
  """Has JAX keep what it compiles, and look there first.

  JAX's own settings stand: `JAX_COMPILATION_CACHE_DIR` names another folder,
  `JAX_ENABLE_COMPILATION_CACHE=false` keeps nothing.

  Of several processes of one run the first alone keeps what it compiles.

  Returns:
    The folder; None where nothing is kept, of which a line on stderr gives
    the reason if it was not asked for.

  Raises:
    ValueError: others may write to the folder that the user named; names it,
      and what to do.
  """
  settings: Any = jax.config  # Its attributes are made at run time.
  if not settings.jax_enable_compilation_cache:
    return None
  if _MIN_SECONDS.upper() not in os.environ:
    settings.update(_MIN_SECONDS, 0.0)
  named = settings.jax_compilation_cache_dir
  if named is not None:
    # A bucket has its own rules of who may write.
    if named and "://" not in named:
      check_private(pathlib.Path(named), "JAX_COMPILATION_CACHE_DIR")
    return pathlib.Path(named) if named else None
  try:
    folder = default_folder()
    make_private(folder)
    check_private(folder, "folder")
    tidy(folder)
  except (OSError, RuntimeError, ValueError) as error:
    print(f"compiled programs are not kept: {error}", file=sys.stderr)
    return None
  settings.update("jax_compilation_cache_dir", str(folder))
  return folder


def default_folder() -> pathlib.Path:
  """`relvit_jax/compiled` under `$XDG_CACHE_HOME`, or else `~/.cache`.

  Raises:
    RuntimeError: there is no home.
  """
  base = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
  if not base.is_absolute():  # By its specification it is then not set.
    base = pathlib.Path.home() / ".cache"
  return base / "relvit_jax" / "compiled"


def make_private(folder: pathlib.Path) -> None:
  """Makes a folder and those above it for nobody else.

  Raises:
    OSError: it cannot be made, or not be written to.
  """
  for place in (*reversed(folder.parents), folder):
    if not place.exists():
      place.mkdir(mode=0o700, exist_ok=True)
  if not os.access(folder, os.W_OK | os.X_OK):
    raise PermissionError(f"{folder} cannot be written to")


def check_private(folder: pathlib.Path, name: str) -> None:
  """Raises if others may write to a folder, or put another in its place.

  Args:
    folder: what is not there yet, JAX makes.
    name: of the folder, for the message.
  """
  folder = folder.resolve()
  remedy = (
    "have JAX_COMPILATION_CACHE_DIR name a folder of your own, of mode 700, or "
    "keep nothing by JAX_ENABLE_COMPILATION_CACHE=false"
  )
  if folder.exists():
    facts = folder.stat()
    mode = stat.S_IMODE(facts.st_mode)
    if facts.st_uid != os.getuid() or mode & 0o022:
      raise ValueError(
        f"{name}={folder} has mode {mode:03o} and belongs to user "
        f"{facts.st_uid}: who may write there may run code as you; remove it, "
        f"or {remedy}"
      )
  for above in folder.parents:
    mode = above.stat().st_mode if above.exists() else 0
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
      raise ValueError(
        f"{name}={folder} lies in {above} of mode {stat.S_IMODE(mode):03o}, "
        f"where anyone may put another in its place; {remedy}"
      )


def tidy(folder: pathlib.Path, max_bytes: int = MAX_BYTES) -> None:
  """Deletes what was cut short, and what was not used for the longest time.

  JAX does not write an entry over, so that what a killed process or a full
  disk left of one would be warned of at every start.

  Args:
    folder: of JAX's entries, by any number of processes.
    max_bytes: how much of them may stay.
  """
  mark = folder / _TIDIED
  try:
    since = mark.stat().st_mtime if mark.exists() else 0.0
    mark.touch()
    used = []
    for entry in folder.glob(_ENTRIES):
      facts = entry.stat()
      if facts.st_mtime >= since and not _is_whole(entry.read_bytes()):
        entry.unlink()
      else:
        used.append((max(facts.st_atime, facts.st_mtime), facts.st_size, entry))
    total = sum(size for _, size, _ in used)
    for _, size, entry in sorted(used):
      if total <= max_bytes:
        break
      entry.unlink()
      total -= size
  except FileNotFoundError:
    pass  # Another process tidies too.


def _is_whole(entry: bytes) -> bool:
  if not entry.startswith(_ZLIB):
    return bool(entry)
  stream = zlib.decompressobj()
  try:
    stream.decompress(entry)
  except zlib.error:
    return False
  return stream.eof
