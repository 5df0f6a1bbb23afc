"""The nine methods, as the README's table has them."""

import pathlib
import re

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"


def specs():
  """[(name of the row, its configs, one after the other)]."""
  text = README.read_text(encoding="utf-8")
  table = text.split("| backbone | method | CONFIG |\n|---|---|---|\n")[1]
  rows, backbone = [], ""
  for line in table.split("\n\n")[0].splitlines():
    first, method, configs = (cell.strip() for cell in line.split("|")[1:4])
    backbone = first or backbone
    found = re.findall(r"`(DATA:[^`]+)`", configs)
    rows.append((f"{backbone.split(',')[0]} {method}", found))
  return rows
