"""The command line, as typed."""

import subprocess
import sys

import pytest

import relvit_jax
from relvit_jax import cli


def test_without_a_command_it_shows_its_help(capsys):
  assert cli.main([]) == 2
  shown = capsys.readouterr().out
  for name, text in cli.COMMANDS.items():
    assert name in shown
    assert text in " ".join(shown.split())


def test_version(capsys):
  with pytest.raises(SystemExit, match="0"):
    cli.main(["--version"])
  assert capsys.readouterr().out.strip() == relvit_jax.__version__


def test_an_unknown_command_is_refused_with_those_there_are(capsys):
  with pytest.raises(SystemExit, match="2"):
    cli.main(["quickstrat"])
  assert "quickstart" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--seeds", "0"], "--seeds=0 must be at least 1"),
    (["--steps", "150"], "--steps=150 must be a multiple of 100"),
    (["--steps", "0"], "--steps=0 must be a multiple of 100"),
  ],
)
def test_wrong_numbers_are_refused(arguments, message, capsys):
  assert cli.main(["quickstart", *arguments]) == 2
  assert message in capsys.readouterr().err


def test_a_workdir_that_is_a_file_is_refused(tmp_path, capsys):
  path = tmp_path / "taken"
  path.write_text("")
  assert cli.main(["quickstart", "--workdir", str(path)]) == 2
  assert f"--workdir={path} is a file" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["quickstart", "--help"]])
def test_help_does_not_wait_for_jax(arguments):
  code = (
    "import sys\n"
    "from relvit_jax import cli\n"
    "try:\n"
    f"  cli.main({arguments!r})\n"
    "finally:\n"
    "  heavy = {'jax', 'flax', 'numpy', 'matplotlib'} & set(sys.modules)\n"
    "  print('imported:', sorted(heavy))\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert "imported: []" in done.stdout
  assert "usage: relvit" in done.stdout


def test_a_reader_that_has_seen_enough_is_no_error():
  done = subprocess.run(
    f"{sys.executable} -m relvit_jax.cli data list | head -n 1",
    shell=True,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.startswith("digits: ")
  assert done.stderr == ""
