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
    (["--pretrain_steps", "50"], "--pretrain_steps=50 must be a multiple"),
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


# What takes a tenth of a second or more to import.
HEAVY = {
  *("jax", "flax", "optax", "orbax", "grain", "tensorboardX"),
  *("numpy", "scipy", "sklearn", "matplotlib", "jinja2", "PIL"),
  *("tensorflow", "tensorflow_datasets", "ml_collections"),
}


def imported_by(code):
  """(which of HEAVY a Python process imports that runs this, its output)."""
  done = subprocess.run(
    [
      sys.executable,
      "-c",
      "import atexit, sys\n"
      "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n" + code,
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  return HEAVY & set(done.stderr.splitlines()[-1].split()), done


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_help_waits_for_nothing(command):
  typed = [*command.split(), "--help"]
  heavy, done = imported_by(f"from relvit_jax import cli; cli.main({typed})")
  assert heavy == set()
  assert done.returncode == 0
  assert f"usage: relvit {command}".strip() in done.stdout


def test_what_cannot_be_is_refused_before_jax_is_imported():
  typed = ["train", "--config=digits:pretrain", "--workdir=run"]
  typed += ["--config.batch_size=0"]
  heavy, done = imported_by(
    f"from relvit_jax import cli; sys.exit(cli.main({typed}))"
  )
  assert "jax" not in heavy
  assert done.returncode == 2
  assert "batch_size=0" in done.stderr


def test_training_imports_only_what_every_run_needs():
  heavy, _ = imported_by("from relvit_jax.training import experiment")
  assert heavy <= {"jax", "flax", "optax", "numpy", "PIL", "ml_collections"}


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
