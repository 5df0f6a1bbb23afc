"""What a checkpoint says of image files."""

import json

import numpy as np
import PIL.Image
import pytest

from relvit_jax import cli
from relvit_jax.analysis import prediction
from relvit_jax.data import sources
from relvit_jax.training import trained

pytestmark = pytest.mark.long

TEST = sources.digits()["test"]


@pytest.fixture(scope="module")
def joint(joint_run):
  return trained.Trained(joint_run)


@pytest.fixture
def files(tmp_path):
  paths = [tmp_path / f"{i}.png" for i in range(2)]
  for path, image in zip(paths, TEST.images, strict=False):
    PIL.Image.fromarray(image).save(path)
  return paths


def test_classes_come_with_their_probabilities(joint, files):
  answer = prediction.ask(joint, prediction.read(files[0]), top=10)
  shares = list(answer["classes"].values())
  assert shares == sorted(shares, reverse=True)
  assert sum(shares) == pytest.approx(1, abs=1e-5)
  best = next(iter(answer["classes"]))
  scores = joint.outputs(TEST.take([0]))["label"]
  assert best == str(np.asarray(scores).argmax())


def test_metrics_of_patches_are_those_of_this_picture(pretrain_run, files):
  model = trained.Trained(pretrain_run)
  answer = prediction.ask(model, prediction.read(files[1]))
  assert "classes" not in answer
  one = TEST.__class__(
    "one", TEST.images[1:2], TEST.labels[1:2], TEST.class_names
  )
  scores = model.evaluate(one)
  assert answer["metrics"].keys() == {"relation_accuracy", "position_accuracy"}
  for metric, value in answer["metrics"].items():
    assert scores[metric] == pytest.approx(value, abs=1e-6)


def test_a_picture_of_any_size_is_brought_to_the_models(joint, files):
  small = prediction.read(files[0])
  large = np.kron(small, np.ones((5, 5, 1), np.uint8))
  ours, theirs = (prediction.ask(joint, one) for one in (small, large))
  for name, share in ours["classes"].items():
    assert theirs["classes"][name] == pytest.approx(share, abs=0.02)


def test_relvit_predict_prints_a_line_an_image(joint_run, files, capsys):
  words = [str(path) for path in files]
  checkpoint = f"--checkpoint={joint_run}"
  assert cli.main(["predict", *words, checkpoint, "--top=2"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.split(":")[0] for line in lines] == words
  assert lines[0].count(" %") == 2 + 2  # Two classes, relation and position.
  assert cli.main(["predict", words[0], checkpoint, "--json"]) == 0
  said = json.loads(capsys.readouterr().out)
  assert said["image"] == words[0]
  assert len(said["classes"]) == 5


def test_what_is_no_image_is_refused_before_the_model_is_read(tmp_path, capsys):
  path = tmp_path / "notes.png"
  path.write_text("no image")
  for image in (path, tmp_path / "gone.png"):
    words = ["predict", str(image), "--checkpoint=nowhere"]
    assert cli.main(words) == 2
    assert str(image) in capsys.readouterr().err
  words = ["predict", str(path), "--checkpoint=nowhere", "--top=0"]
  assert cli.main(words) == 2
  assert "--top=0 must be at least 1" in capsys.readouterr().err
