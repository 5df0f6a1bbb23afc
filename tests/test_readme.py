"""What the README shows works."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(heading, language):
  """The first block of a language under a heading."""
  section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
  return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def test_the_python_example_runs_and_prints_what_it_says(capsys):
  (code,) = block("From Python", "python")
  exec(compile(code, "README.md", "exec"), {})
  losses, relation = capsys.readouterr().out.strip().splitlines()
  assert losses.startswith("{'relation': 2.")
  assert relation == "up_left"


def test_both_commands_are_one_block_of_one_line():
  for heading in ("Quick start", "Tests"):
    (command,) = block(heading, "sh")
    assert len(command.strip().splitlines()) == 1


def test_its_pictures_and_files_are_there():
  for path in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
    assert (ROOT / path).is_file(), path


def test_every_top_level_name_it_uses_exists():
  for path in re.findall(
    r"`((?:configs|tests|launch|relvit_jax)/[\w/.]+)`", README
  ):
    assert (ROOT / path).exists(), path
