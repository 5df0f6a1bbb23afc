"""relvit data, as typed."""

import argparse
import subprocess
import sys

import pytest

from relvit_jax.commands import CommandError, data
from relvit_jax.data.builders import catalogue


def typed(*words):
  parser = argparse.ArgumentParser(prog="relvit data")
  data.add_arguments(parser)
  data.main(parser.parse_args(words))


def test_the_list_names_every_data_set_and_its_copies(folder, tmp_path, capsys):
  place = str(tmp_path / "out")
  typed("list", "--data_dir", place)
  shown = capsys.readouterr().out
  for name, entry in catalogue.ENTRIES.items():
    assert f"{name}: {entry.about}\n" in shown
    assert f"  needs {entry.needs}\n" in shown
  assert "prepared in" not in shown
  typed("prepare", "folder", "--folder", str(folder), "--data_dir", place)
  assert "folder is prepared in" in capsys.readouterr().out
  typed("list", "--data_dir", place)
  assert f"  prepared in {place}/image_folder/mine-" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["cifar"], r"data\.name='cifar' does not exist; there are digits"),
    (["folder"], r"takes data\.folder \(--folder\) as well"),
    (["imagenet100"], r"takes data\.classes \(--classes\) as well"),
    (["folder", "--folder", "/nowhere"], "/nowhere is not a folder"),
    (["tiny_imagenet", "--max_skipped", "-1"], "max_skipped=-1 must not"),
  ],
)
def test_what_cannot_be_prepared_is_a_command_error(words, message, tmp_path):
  with pytest.raises(CommandError, match=message):
    typed("prepare", *words, "--data_dir", str(tmp_path))


def test_an_archive_that_is_not_there_is_a_command_error(tmp_path):
  with pytest.raises(CommandError, match="nowhere is not a file"):
    typed(
      *("prepare", "tiny_imagenet", "--archive", str(tmp_path / "nowhere")),
      *("--data_dir", str(tmp_path)),
    )


def test_an_action_must_be_named(capsys):
  with pytest.raises(SystemExit, match="2"):
    typed()
  assert "ACTION" in capsys.readouterr().err


def test_help_does_not_wait_for_tfds():
  code = (
    "import argparse, sys\n"
    "from relvit_jax.commands import data\n"
    "parser = argparse.ArgumentParser()\n"
    "data.add_arguments(parser)\n"
    "try:\n"
    "  parser.parse_args(['prepare', '--help'])\n"
    "finally:\n"
    "  heavy = {'jax', 'numpy', 'tensorflow_datasets'} & set(sys.modules)\n"
    "  print('imported:', sorted(heavy))\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert "imported: []" in done.stdout
  assert "--archive_sha256" in done.stdout
