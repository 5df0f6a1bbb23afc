"""A work directory belongs to one run; another config is refused by key."""

import pytest

from relvit_jax import config
from relvit_jax.training import workdir


def load(*overrides):
  return config.load("digits:joint", overrides)


def begin(settings, folder):
  workdir.check(settings, folder)
  workdir.claim(settings, folder)


def test_checking_makes_nothing(tmp_path):
  workdir.check(load(), tmp_path / "run")
  assert list(tmp_path.iterdir()) == []


def test_a_new_folder_gets_the_config(tmp_path):
  folder = tmp_path / "runs" / "first"
  begin(load("model.depth=3"), folder)
  there = workdir.read_config(folder)
  assert there.to_dict() == load("model.depth=3").to_dict()


def test_the_same_run_may_be_opened_again(tmp_path):
  begin(load(), tmp_path)
  before = (tmp_path / workdir.CONFIG).read_bytes()
  begin(load(), tmp_path)
  assert (tmp_path / workdir.CONFIG).read_bytes() == before


def test_another_config_is_refused_with_the_keys_that_differ(tmp_path):
  begin(load(), tmp_path)
  with pytest.raises(ValueError, match=r"(?s)another config.*model.depth: 2 t"):
    workdir.check(load("model.depth=3"), tmp_path)
  with pytest.raises(ValueError, match="seed: 0 there, 1 asked for"):
    workdir.check(load("seed=1"), tmp_path)


def test_a_folder_of_other_things_is_left_alone(tmp_path):
  (tmp_path / "thesis.tex").write_text("…")
  with pytest.raises(
    ValueError, match=r"holds other files and no config\.json"
  ):
    workdir.check(load(), tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_folder(tmp_path):
  path = tmp_path / "file"
  path.write_text("")
  with pytest.raises(ValueError, match="is a file, not a folder"):
    workdir.check(load(), path)


def test_no_run_began_in_an_empty_folder(tmp_path):
  with pytest.raises(ValueError, match="no run began there"):
    workdir.read_config(tmp_path)
