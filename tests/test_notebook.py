"""What notebooks use: commands that stop, pictures, folders of images."""

import shutil
import zipfile

import IPython.display
import numpy as np
import PIL.Image
import pytest
from matplotlib.figure import Figure

from relvit_jax import notebook


def test_a_command_prints_all_to_one_stream(capsys, tmp_path):
  notebook.relvit("data", "list", "--data_dir", tmp_path)
  said = capsys.readouterr()
  assert "digits: " in said.out
  assert said.err == ""


@pytest.mark.parametrize(
  ("words", "reason"),
  [
    (("quickstart", "--seeds=0"), "--seeds=0 must be at least 1"),
    (("data", "nonsense"), "invalid choice: 'nonsense'"),
  ],
)
def test_a_command_that_cannot_be_stops_the_notebook(words, reason, capsys):
  with pytest.raises(notebook.NotebookError, match="see above") as caught:
    notebook.relvit(*words)
  assert reason in capsys.readouterr().out
  # What IPython shows of it: no line of this package.
  assert caught.value._render_traceback_() == [str(caught.value)]


@pytest.fixture
def displayed(monkeypatch):
  shown = []
  monkeypatch.setattr(IPython.display, "display", shown.append)
  return shown


def test_a_figure_is_shown_no_wider_than_asked(displayed):
  figure = Figure(figsize=(4, 2))
  notebook.show(figure, width=300)
  notebook.show(figure)
  assert [image.width for image in displayed] == [300, 400]
  assert displayed[0].data.startswith(b"\x89PNG")


def test_a_file_is_shown_as_it_is(displayed, tmp_path):
  path = tmp_path / "one.png"
  PIL.Image.new("RGB", (4, 4)).save(path)
  notebook.show(path, width=200)
  (image,) = displayed
  assert image.data == path.read_bytes()
  assert image.width == 200


def test_a_folder_is_taken_as_it_is(tmp_path):
  assert notebook.images(tmp_path, tmp_path / "scratch") == tmp_path
  assert not (tmp_path / "scratch").exists()


def test_without_a_folder_there_are_the_digits_with_a_margin(tmp_path):
  folder = notebook.images("", tmp_path)
  files = sorted((folder / "test" / "7").iterdir())
  pixels = np.asarray(PIL.Image.open(files[0]))
  assert pixels.shape == (10, 10, 3)
  assert pixels[0].max() == pixels[:, -1].max() == 0
  assert pixels[1:-1, 1:-1].max() > 200
  # A second time they are not written again.
  files[0].unlink()
  assert notebook.images("", tmp_path) == folder
  assert not files[0].exists()


def zipped(path, *names):
  with zipfile.ZipFile(path, "w") as archive:
    for name in names:
      archive.writestr(name, b"")
  return path


@pytest.mark.parametrize("above", ["", "photos/", "my photos/all/"])
def test_the_train_folder_of_an_archive_is_found(above, tmp_path):
  path = zipped(
    tmp_path / "photos.ZIP", f"{above}train/cat/1.png", "__MACOSX/._photos"
  )
  folder = notebook.images(str(path), tmp_path / "scratch")
  assert (folder / "train" / "cat" / "1.png").is_file()
  again = notebook.images(path, tmp_path / "scratch")
  assert again == folder


def test_another_archive_of_that_name_is_unpacked_anew(tmp_path):
  path = tmp_path / "photos.zip"
  zipped(path, "train/a.png")
  first = notebook.images(path, tmp_path / "scratch")
  zipped(path, "train/a.png", "train/b.png")
  second = notebook.images(path, tmp_path / "scratch")
  assert first != second
  assert (second / "train" / "b.png").is_file()


def test_unpacking_that_was_stopped_is_done_again(tmp_path, monkeypatch):
  path = zipped(tmp_path / "photos.zip", "train/a.png")
  with monkeypatch.context() as patch:
    patch.setattr(shutil, "unpack_archive", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      notebook.images(path, tmp_path / "scratch")
  folder = notebook.images(path, tmp_path / "scratch")
  assert (folder / "train" / "a.png").is_file()


def test_what_only_is_called_an_archive_is_refused(tmp_path):
  path = tmp_path / "photos.zip"
  path.write_bytes(b"not one")
  with pytest.raises(notebook.NotebookError, match=r"photos\.zip is no .*file"):
    notebook.images(path, tmp_path / "scratch")


def test_what_is_neither_says_what_it_may_be(tmp_path):
  with pytest.raises(notebook.NotebookError, match="must be a folder or a"):
    notebook.images(tmp_path / "missing", tmp_path)
