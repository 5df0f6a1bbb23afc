"""What a first start compiled, a second one finds."""

import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import zlib

import jax
import pytest
from tiny_runs import typed

from relvit_jax import cli
from relvit_jax import compilation_cache as cache

# Runs a command and says how often JAX asked for a program and had it.
START = """
import collections, json, sys
import jax
from relvit_jax import cli
counts = collections.Counter()
count = lambda event, *_, **__: counts.update([event.rsplit("/")[-1]])
jax.monitoring.register_event_listener(count)
jax.monitoring.register_event_duration_secs_listener(count)
status = cli.main(sys.argv[1:])
print(json.dumps(counts))
sys.exit(status)
"""


def start(words, home):
  """One process that trains → (programs asked for, compiled, found)."""
  ours = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME")
  environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
  done = subprocess.run(
    [sys.executable, "-c", START, *words],
    env=environment | {"XDG_CACHE_HOME": str(home)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  # Nor is anything of it said: only how the run goes.
  assert {line[:5] for line in done.stderr.splitlines()} <= {"step ", ""}
  counts = json.loads(done.stdout.splitlines()[-1])
  names = ("backend_compile_duration", "cache_misses", "cache_hits")
  return tuple(counts.get(name, 0) for name in names)


@pytest.mark.long
def test_a_second_start_compiles_nothing(tmp_path):
  def run(name, **keys):
    words = typed(
      "digits:pretrain", tmp_path / name, keep_checkpoints=2, **keys
    )
    return start(words, tmp_path / "home")

  asked, compiled, found = run("first")
  assert (asked, found) == (compiled, 0)
  # Few enough to name: all else is inside of one of these. The checkpoints
  # are cut into slices, one for each of the devices to write.
  assert {
    path.name.split("-")[0] for path in (tmp_path / "home").rglob("*-cache")
  } == {
    *("jit_init", "jit_order_words", "jit_train_steps", "jit_evaluate_batch"),
    *("jit__threefry_seed", "jit_convert_element_type", "jit_stage"),
    "jit_slice",
  }
  # In another folder, of another seed; and going on where it was stopped.
  assert run("second", seed=1) == (asked, 0, asked)
  shutil.rmtree(tmp_path / "first" / "checkpoints" / "8")
  resumed, compiled, found = run("first")
  assert 0 < resumed == found
  assert compiled == 0


@pytest.fixture
def settings(monkeypatch):
  """JAX's settings as of a new process; those of the tests come back."""
  names = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
  )
  before = {name: getattr(jax.config, name) for name in names}
  for name in names:
    monkeypatch.delenv(name.upper(), raising=False)
  jax.config.update("jax_compilation_cache_dir", None)
  yield jax.config
  for name, value in before.items():
    jax.config.update(name, value)


def test_the_folder_is_private_and_small_programs_are_kept(
  settings, tmp_path, monkeypatch
):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new"))
  umask = os.umask(0)
  try:
    folder = cache.enable()
  finally:
    os.umask(umask)
  assert folder == tmp_path / "new" / "relvit_jax" / "compiled"
  for path in (folder, folder.parent, tmp_path / "new"):
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
  assert settings.jax_compilation_cache_dir == str(folder)
  assert settings.jax_persistent_cache_min_compile_time_secs == 0


@pytest.mark.parametrize("base", ["", "caches", None])
def test_without_a_place_of_its_own_it_lies_in_the_home(base, monkeypatch):
  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  if base is not None:
    monkeypatch.setenv("XDG_CACHE_HOME", base)
  monkeypatch.setenv("HOME", "/home/her")
  assert cache.default_folder() == pathlib.Path(
    "/home/her/.cache/relvit_jax/compiled"
  )


def test_what_the_user_set_stands(settings, tmp_path, monkeypatch):
  named = tmp_path / "named"
  settings.update("jax_compilation_cache_dir", str(named))
  monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "3")
  settings.update("jax_persistent_cache_min_compile_time_secs", 3.0)
  assert cache.enable() == named
  assert settings.jax_compilation_cache_dir == str(named)
  assert settings.jax_persistent_cache_min_compile_time_secs == 3
  settings.update("jax_enable_compilation_cache", False)
  assert cache.enable() is None


def test_a_home_that_cannot_be_written_to_is_said_and_no_error(
  settings, tmp_path, monkeypatch, capsys
):
  (tmp_path / "file").touch()
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  assert cache.enable() is None
  assert settings.jax_compilation_cache_dir is None
  said = capsys.readouterr().err
  assert said.startswith("compiled programs are not kept: ")
  assert str(tmp_path / "file") in said


def test_a_user_without_a_home_compiles_anew(settings, monkeypatch, capsys):
  def homeless():
    raise RuntimeError("no home")

  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.setattr(pathlib.Path, "home", homeless)
  assert cache.enable() is None
  assert "compiled programs are not kept: no home" in capsys.readouterr().err


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777, 0o720])
def test_a_folder_that_others_write_to_is_refused(
  mode, settings, tmp_path, capsys
):
  tmp_path.chmod(mode)
  settings.update("jax_compilation_cache_dir", str(tmp_path))
  assert cli.main(typed("digits:pretrain", tmp_path / "run")) == 2
  said = capsys.readouterr().err
  assert f"JAX_COMPILATION_CACHE_DIR={tmp_path} has mode {mode:03o}" in said
  assert "name a folder of your own, of mode 700" in said
  assert "keep nothing by JAX_ENABLE_COMPILATION_CACHE=false" in said


def test_ours_is_then_not_used(settings, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  folder = cache.default_folder()
  folder.mkdir(parents=True)
  folder.chmod(0o777)
  assert cache.enable() is None
  assert settings.jax_compilation_cache_dir is None
  said = capsys.readouterr().err
  assert f"compiled programs are not kept: folder={folder} has mode 777" in said


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o750])
def test_others_may_read(mode, tmp_path):
  tmp_path.chmod(mode)
  cache.check_private(tmp_path, "it")


def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
  owner = os.getuid()
  monkeypatch.setattr(os, "getuid", lambda: owner + 1)
  with pytest.raises(ValueError, match=f"belongs to user {owner}: who may"):
    cache.check_private(tmp_path, "it")


def test_nor_may_others_put_another_in_its_place(tmp_path):
  folder = tmp_path / "above" / "mine"
  folder.mkdir(parents=True, mode=0o700)
  folder.parent.chmod(0o777)
  for path in (folder, folder / "not yet there"):
    with pytest.raises(
      ValueError, match=f"lies in {folder.parent} of mode 777"
    ):
      cache.check_private(path, "it")
  folder.parent.chmod(0o1777)  # As /tmp: only owners rename what is there.
  cache.check_private(folder, "it")


def test_a_link_is_followed(tmp_path):
  (tmp_path / "theirs").mkdir()
  (tmp_path / "theirs").chmod(0o777)
  (tmp_path / "link").symlink_to(tmp_path / "theirs")
  with pytest.raises(
    ValueError, match=f"it={tmp_path / 'theirs'} has mode 777"
  ):
    cache.check_private(tmp_path / "link", "it")


def test_a_bucket_is_left_alone(settings):
  settings.update("jax_compilation_cache_dir", "gs://bucket/compiled")
  assert cache.enable() is not None
  assert settings.jax_compilation_cache_dir == "gs://bucket/compiled"


def entries(folder):
  return sorted(path.name for path in folder.glob("*-cache"))


def test_what_was_cut_short_is_deleted(tmp_path):
  whole = zlib.compress(bytes(range(256)) * 20)
  (tmp_path / "whole-cache").write_bytes(whole)
  (tmp_path / "other-cache").write_bytes(b"\x28\xb5 of another compression")
  (tmp_path / "short-cache").write_bytes(whole[:-1])
  (tmp_path / "wrong-cache").write_bytes(whole[:9] + b"\xff" + whole[10:])
  (tmp_path / "empty-cache").touch()
  cache.tidy(tmp_path)
  assert entries(tmp_path) == ["other-cache", "whole-cache"]


def test_nothing_is_read_twice(tmp_path):
  cache.tidy(tmp_path)
  old = tmp_path / "old-cache"
  old.write_bytes(b"")
  os.utime(old, (1, 1))
  (tmp_path / "new-cache").write_bytes(b"")
  cache.tidy(tmp_path)
  assert entries(tmp_path) == ["old-cache"]


def test_the_longest_unused_go_first(tmp_path):
  cache.tidy(tmp_path)
  # name: (read, written) at these seconds.
  for name, times in {"a": (1, 1), "b": (9, 2), "c": (3, 3)}.items():
    path = tmp_path / f"{name}-cache"
    path.write_bytes(zlib.compress(b"program"))
    os.utime(path, times)
  size = path.stat().st_size
  cache.tidy(tmp_path, 3 * size)
  assert entries(tmp_path) == ["a-cache", "b-cache", "c-cache"]
  cache.tidy(tmp_path, 2 * size)
  assert entries(tmp_path) == ["b-cache", "c-cache"]
  cache.tidy(tmp_path, 2 * size - 1)
  assert entries(tmp_path) == ["b-cache"]
