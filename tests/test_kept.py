"""Numbers in files."""

import pytest

from relvit_jax.commands import CommandError, kept


def test_what_was_kept_is_read_again(tmp_path):
  path = tmp_path / "numbers.json"
  kept.check("json", path)
  kept.write(path, {"result": [1, 2.5], "name": "Größe"})
  assert "Größe" in path.read_text(encoding="utf-8")
  assert kept.read([path], "result", "pairs") == [
    {"result": [1, 2.5], "name": "Größe"}
  ]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("{", "cannot be read: Expecting"),
    ("[1]", "has none of result: it must be a file that --json"),
    ('{"other": 1}', "has none of result"),
  ],
)
def test_what_is_something_else_is_refused(content, message, tmp_path):
  path = tmp_path / "numbers.json"
  path.write_text(content, encoding="utf-8")
  with pytest.raises(CommandError, match=message):
    kept.read([path], "result")


def test_a_file_that_could_not_be_written_is_refused(tmp_path):
  with pytest.raises(CommandError, match=r"--json=.*: there is no folder"):
    kept.check("json", tmp_path / "no" / "x.json")
  with pytest.raises(CommandError, match="is a folder; it must be a file"):
    kept.check("json", tmp_path)
  kept.check("json", None)
