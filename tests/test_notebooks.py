"""The notebooks run from top to bottom, stay thin, and are kept without output.

Executed on one CPU device by this Python, in a temporary folder, with small
numbers in their forms.
"""

import ast
import base64
import importlib.util
import io
import json
import pathlib
import re
import sys
import types
import zipfile

import nbclient
import nbformat
import PIL.Image
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from relvit_jax.training.trained import Trained

pytestmark = pytest.mark.long

LAUNCH = pathlib.Path(__file__).resolve().parents[1] / "launch"
NOTEBOOKS = sorted(LAUNCH.glob("*.ipynb"))
# `name = value  # @param …`, a field of a form on Colab.
FIELD = r"^{name} = (.+?)(?=  # @param)"

# What stands for google.colab: says what it was asked for.
COLAB = """
class drive:
  def mount(path): print("mounts", path)
class files:
  def upload(): return {"uploaded.zip": b""}
  def download(path): print("downloads", path)
"""


def read(path):
  return nbformat.read(path, as_version=4)


def code(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == "code"]


def fill_in(notebook, **values):
  """Puts values into the forms; each must have its field, exactly once."""
  for name, value in values.items():
    pattern = re.compile(FIELD.format(name=re.escape(name)), re.MULTILINE)
    holders = [cell for cell in code(notebook) if pattern.search(cell.source)]
    assert len(holders) == 1, f"{len(holders)} forms have a field {name}"
    (cell,) = holders
    line = f"{name} = {value!r}"
    cell.source, count = pattern.subn(lambda _, line=line: line, cell.source)
    assert count == 1, f"a form has {count} fields {name}"


def execute(notebook, folder):
  """Runs all cells there, in a kernel of this Python; the cells by their id."""
  spec = folder / "kernels" / "tested"
  spec.mkdir(parents=True)
  argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
  (spec / "kernel.json").write_text(
    json.dumps({"argv": argv, "display_name": "tested", "language": "python"})
  )
  client = nbclient.NotebookClient(
    notebook,
    kernel_name="tested",
    timeout=240,
    resources={"metadata": {"path": str(folder)}},
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("JAX_NUM_CPU_DEVICES", "1")
    # Nothing of the person who runs the tests is read or written.
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "TFDS_DATA_DIR"):
      patch.setenv(name, str(folder / name.lower()))
    patch.setenv("JUPYTER_PATH", str(folder))  # Where kernels are looked for.
    client.execute()
  return {cell.id: cell for cell in notebook.cells}


def said(cell):
  return "".join(
    output.text for output in cell.outputs if output.output_type == "stream"
  )


def pictures(cell):
  return [
    PIL.Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
    for output in cell.outputs
    if "image/png" in output.get("data", {})
  ]


def is_drawn(image):
  """Whether there is more on it than one colour."""
  return image.width > 300 and len(image.convert("RGB").getcolors(2**24)) > 10


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
  folder = tmp_path_factory.mktemp("quickstart")
  notebook = read(LAUNCH / "colab_quickstart.ipynb")
  fill_in(notebook, seeds=1, pretrain_steps=200, labelled_steps=100)
  return execute(notebook, folder), folder


@pytest.fixture(scope="module")
def finetune(tmp_path_factory):
  """With what Colab would have besides: a drive, and downloads."""
  folder = tmp_path_factory.mktemp("finetune")
  (folder / "google").mkdir()
  (folder / "google" / "colab.py").write_text(COLAB)
  notebook = read(LAUNCH / "colab_finetune.ipynb")
  fill_in(
    notebook,
    use_drive=True,
    work_folder="drive/my runs",
    depth=1,
    batch_size=32,
    pretrain_steps=40,
    finetune_steps=40,
  )
  # After a disconnect the same cell is run again.
  (pretrain,) = (cell for cell in notebook.cells if cell.id == "pretrain")
  notebook.cells.append(nbformat.v4.new_code_cell(pretrain.source, id="again"))
  return execute(notebook, folder), folder


def test_a_field_that_is_not_there_is_an_error():
  notebook = read(NOTEBOOKS[0])
  with pytest.raises(AssertionError, match="0 forms have a field missing"):
    fill_in(notebook, missing=1)


def test_the_quickstart_says_where_it_runs(quickstart):
  cells, _ = quickstart
  assert said(cells["devices"]).startswith("1 × cpu, JAX ")


def test_the_quickstart_installs_nothing_where_the_package_is(quickstart):
  cells, _ = quickstart
  assert not cells["install"].outputs
  assert not cells["restart"].outputs


def installed(monkeypatch, source, *there):
  """What the cell asks of pip where there are these modules."""
  (cell,) = (cell for cell in read(NOTEBOOKS[0]).cells if cell.id == "install")
  asked = []
  names = {"source": source}

  def magic(name, line):
    asked.append(f"{name} {line.format_map(names)}")

  names["get_ipython"] = lambda: types.SimpleNamespace(run_line_magic=magic)
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in there)
  exec(TransformerManager().transform_cell(cell.source), names)
  return asked


@pytest.mark.parametrize(
  ("there", "extra"),
  [
    ((), ""),
    (("jax_cuda12_plugin",), "cuda12"),
    (("jax_cuda13_plugin",), "cuda13"),
    (("libtpu",), "tpu"),
  ],
)
def test_the_plugin_that_jax_came_with_is_kept_in_step(
  monkeypatch, tmp_path, there, extra
):
  path = tmp_path / "clone.zip"
  path.touch()
  assert installed(monkeypatch, str(path), *there) == [
    f'pip install --quiet "relvit_jax[{extra}] @ {path.as_uri()}"'
  ]


def test_an_address_is_one_of_git(monkeypatch):
  assert installed(monkeypatch, "https://host.example/relvit_jax") == [
    'pip install --quiet "relvit_jax[] @ git+https://host.example/relvit_jax"'
  ]


def test_without_a_source_it_says_what_to_do(monkeypatch):
  with pytest.raises(SystemExit, match="fill in `source` above"):
    installed(monkeypatch, "")


def test_what_is_there_is_not_installed(monkeypatch):
  assert installed(monkeypatch, "", "relvit_jax") == []


def test_the_quickstart_trains_and_compares(quickstart):
  cells, folder = quickstart
  results = json.loads((folder / "runs/quickstart/results.json").read_text())
  steps = [(a["labelled_steps"], a["all_steps"]) for a in results["arms"]]
  assert steps == [(100, 100), (100, 300), (300, 300)]
  for arm in results["arms"]:
    assert [r["seed"] for r in arm["runs"]] == [0]
    for one in arm["runs"]:
      assert 0.05 < one["test_accuracy"] < 0.95
  relation = results["pretext"]["relation_accuracy"]
  assert relation["test"] > 1.2 * relation["chance"]

  for name, count in (("comparison", 3), ("pretext", 2)):
    (output,) = cells[name].outputs
    assert output.data["text/html"].count("<tr>") == 1 + count
  (output,) = cells["verdict"].outputs
  assert output.data["text/markdown"] == results["verdict"]


def test_the_quickstart_shows_pictures(quickstart):
  cells, _ = quickstart
  for name in ("sees", "curves", "relations"):
    (image,) = pictures(cells[name])
    assert is_drawn(image), name


def test_own_images_are_shown_trained_on_and_told(finetune):
  cells, folder = finetune
  assert len(list((folder / "unpacked/digits/train").rglob("*.png"))) == 1_097
  work = folder / "drive/my runs"
  for stage in ("pretrain", "finetune"):
    summary = json.loads((work / stage / "summary.json").read_text())
    assert summary["last"]["step"] == 40
  scores = json.loads((work / "scores.json").read_text())
  assert 0.12 < scores["metrics"]["label_top1"] < 0.95
  assert scores["per_class"].keys() == set("0123456789")
  shown = ["sees", "pretrain-curves", "relations", "finetune-curves"]
  for name in [*shown, "confusion", "predictions"]:
    (image,) = pictures(cells[name])
    assert is_drawn(image), name


def test_training_goes_on_where_it_was(finetune):
  cells, _ = finetune
  assert "resumes at step 40 of 40" in said(cells["again"])
  assert "resumes" not in said(cells["pretrain"])


def test_weights_leave_in_an_archive_that_can_be_asked(finetune, tmp_path):
  cells, folder = finetune
  archive = folder / "drive/my runs/model.zip"
  assert said(cells["export"]).endswith(f"downloads {archive}\n")
  zipfile.ZipFile(archive).extractall(tmp_path)
  assert Trained(tmp_path).class_names == tuple("0123456789")


def test_the_drive_is_mounted_where_it_is_asked_for(finetune):
  cells, _ = finetune
  assert said(cells["images"]) == "mounts /content/drive\n"


@pytest.mark.parametrize("fixture", ["quickstart", "finetune"])
def test_the_output_is_for_people(fixture, request):
  """No warnings, no pile of lines, nothing of a progress bar."""
  cells, _ = request.getfixturevalue(fixture)
  for name, cell in cells.items():
    if cell.cell_type == "code":
      text = said(cell)
      assert "Warning" not in text, name
      assert "WARNING" not in text, name
      assert "\r" not in text, name
      assert len(text.splitlines()) < 50, name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_output_or_traces(path):
  nbformat.validate(json.loads(path.read_text(encoding="utf-8")))
  notebook = read(path)
  assert notebook.metadata.keys() <= {
    "accelerator",
    "colab",
    "kernelspec",
    "language_info",
  }
  assert notebook.metadata.kernelspec.name == "python3"
  assert notebook.metadata.language_info == {"name": "python"}
  for cell in notebook.cells:
    assert not cell.metadata
  for cell in code(notebook):
    assert cell.outputs == []
    assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_thin(path):
  for cell in code(read(path)):
    lines = cell.source.splitlines()
    assert len(lines) <= 18, cell.id
    assert max(map(len, lines)) <= 80, cell.id
    plain = re.sub(r"^(\s*)%.*", r"\1pass", cell.source, flags=re.MULTILINE)
    for node in ast.walk(ast.parse(plain)):
      is_own = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
      assert not isinstance(node, is_own), cell.id


def test_both_install_alike():
  first, second = (
    [
      c.source
      for c in read(path).cells
      if c.id in ("source", "install", "restart")
    ]
    for path in NOTEBOOKS
  )
  assert first == second
  assert len(first) == 3
