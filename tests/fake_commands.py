"""Commands that are not there, put on PATH: they note how they are called.

What they say, and with which status they end, a test gives beforehand.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]

_COMMAND = """\
#!{python} -S
import json, pathlib, sys
place = pathlib.Path({place!r})
line = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
fed = "" if sys.stdin.isatty() else sys.stdin.read()
with (place / "calls").open("a") as calls:
  calls.write(json.dumps([line, fed]) + "\\n")
answers = json.loads((place / "answers").read_text())
for words, told in answers:
  if words in " ".join(line):
    status, text = told.pop(0) if len(told) > 1 else told[0]
    (place / "answers").write_text(json.dumps(answers))
    print(text)
    sys.exit(status)
"""


class Commands:
  """Some of them, in a folder of their own."""

  def __init__(self, place, *names):
    self._place = place / "commands"
    self._path = self._place / "bin"
    self._path.mkdir(parents=True)
    for name in names:
      command = self._path / name
      command.write_text(
        _COMMAND.format(python=sys.executable, place=str(self._place))
      )
      command.chmod(0o755)
    self.answer({})

  def answer(self, answers):
    """What to say: {words in the command: [(status, text), …]}, in this order.

    The last of a list is said again and again; to all else nothing, with 0.
    """
    listed = [[words, told] for words, told in answers.items()]
    (self._place / "answers").write_text(json.dumps(listed))
    (self._place / "calls").write_text("")

  def environment(self, **more):
    path = f"{self._path}:{os.environ['PATH']}"
    return os.environ | {"PATH": path} | more

  def run(self, words, cwd, **environment):
    """(exit status, output, errors) of a program that may call them."""
    done = subprocess.run(
      words,
      cwd=cwd,
      env=self.environment(**environment),
      capture_output=True,
      text=True,
      stdin=subprocess.DEVNULL,
      timeout=30,
      check=False,
    )
    return done.returncode, done.stdout, done.stderr

  def calls(self):
    """[[words of a call, what it was fed], …]."""
    lines = (self._place / "calls").read_text().splitlines()
    return [json.loads(line) for line in lines]


def clone(place):
  """A repository of one commit that has launch/ alone, without pictures."""
  pictures = shutil.ignore_patterns("*.png")
  shutil.copytree(ROOT / "launch", place / "launch", ignore=pictures)
  shutil.copy(ROOT / ".gitignore", place)
  subprocess.run(["git", "init", "--quiet"], cwd=place, check=True)
  commit_all(place, "All")
  return place


def commit_all(clone, message):
  """Commits whatever there is."""
  git = ["git", "-c", "user.name=A", "-c", "user.email=a@b.example"]
  for words in (["add", "."], ["commit", "--quiet", "--message", message]):
    subprocess.run([*git, *words], cwd=clone, check=True)


def commit(clone):
  """The last one of a clone."""
  words = ["git", "rev-parse", "HEAD"]
  done = subprocess.run(
    words, cwd=clone, capture_output=True, text=True, check=True
  )
  return done.stdout.strip()
