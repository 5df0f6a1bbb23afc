"""PyTorch's step is that of the same model, with the same losses."""

import jax
import numpy as np
import pytest
from flax import nnx

import relvit_jax
from relvit_jax.interop import torch_official
from relvit_jax.training import objectives

torch = pytest.importorskip("torch", reason="of the extra `benchmark`")
pytest.importorskip("transformers", reason="of the extra `benchmark`")

TASKS = ("relation", "distance", "angle", "position", "label")
SIZES = {"embed_dim": 24, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
HEADS = {
  "relation": "rel_head",
  "distance": "dist_head",
  "angle": "angle_head",
}


def hugging_face(official):
  """Weights under official names → the same under those of the rival."""
  state = {
    "vit.embeddings.cls_token": official["backbone.cls_token"],
    "vit.embeddings.position_embeddings": official["backbone.pos_embed"],
  }
  same = {
    "vit.embeddings.patch_embeddings.projection": "backbone.patch_embed.proj",
    "vit.layernorm": "backbone.norm",
    "heads.position": "abs_pos_head",
    "heads.label": "clf_head",
  }
  for i in range(SIZES["depth"]):
    theirs, ours = f"vit.layers.{i}", f"backbone.blocks.{i}"
    same |= {
      f"{theirs}.layernorm_before": f"{ours}.norm1",
      f"{theirs}.layernorm_after": f"{ours}.norm2",
      f"{theirs}.attention.o_proj": f"{ours}.attn.proj",
      f"{theirs}.mlp.fc1": f"{ours}.mlp.fc1",
      f"{theirs}.mlp.fc2": f"{ours}.mlp.fc2",
    }
    for kind in ("weight", "bias"):
      three = np.split(official[f"{ours}.attn.qkv.{kind}"], 3)
      for name, array in zip("qkv", three, strict=True):
        state[f"{theirs}.attention.{name}_proj.{kind}"] = array
  for name, ours in same.items():
    for kind in ("weight", "bias"):
      state[f"{name}.{kind}"] = official[f"{ours}.{kind}"]
  for task, head in HEADS.items():
    for name, short in (("query", "q_lin"), ("key", "k_lin")):
      parts = [
        official[f"{head}.heads.{r}.{short}.weight"]
        for r in range(9 if task == "relation" else 1)
      ]
      state[f"heads.{task}.{name}.weight"] = np.concatenate(parts)
  return {name: torch.tensor(array) for name, array in state.items()}


@pytest.fixture(scope="module")
def pair():
  """Our model and the rival's, with the same weights."""
  from relvit_jax.analysis import pytorch_step

  ours = relvit_jax.create_model(
    "vit",
    image_size=8,
    patch_size=2,
    tasks=TASKS,
    num_classes=10,
    rngs=nnx.Rngs(0),
    **SIZES,
  )
  theirs = pytorch_step.Model(8, 2, TASKS, 10, **SIZES)
  theirs.load_state_dict(hugging_face(torch_official.state_dict(ours)))
  return ours, theirs


def test_outputs_losses_and_gradients_are_ours(pair):
  from relvit_jax.analysis import pytorch_step

  ours, theirs = pair
  images = jax.random.normal(jax.random.key(0), (3, 8, 8, 3))
  labels = np.array([3, 7, 0])
  graphdef, params = nnx.split(ours)

  @jax.jit
  @jax.grad
  def gradients(params):
    outputs = nnx.merge(graphdef, params)(images)
    return objectives.losses(outputs, {"label": labels}, (4, 4))["total"]

  expected = nnx.jit(lambda model: model(images))(ours)
  wanted = objectives.losses(expected, {"label": labels}, (4, 4))
  found = theirs(torch.tensor(np.asarray(images)).permute(0, 3, 1, 2))
  targets = pytorch_step.targets(4) | {"label": torch.tensor(labels)}
  losses = pytorch_step.losses(found, targets)
  losses["total"].backward()

  assert list(found) == list(TASKS)
  for task in TASKS:
    np.testing.assert_allclose(
      found[task].detach().numpy(), expected[task], atol=1e-5
    )
  assert set(losses) == set(wanted)
  for task, loss in losses.items():
    assert float(loss.detach()) == pytest.approx(float(wanted[task]), rel=1e-5)
  norm = np.sqrt(
    sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradients(params)))
  )
  theirs_norm = torch.nn.utils.get_total_norm(
    [parameter.grad for parameter in theirs.parameters()]
  )
  assert float(theirs_norm) == pytest.approx(norm, rel=1e-5)


def test_labels_need_a_number_of_classes():
  from relvit_jax.analysis import pytorch_step

  with pytest.raises(ValueError, match="'label' needs num_classes"):
    pytorch_step.Model(8, 2, ["label"], **SIZES)


def test_a_batch_that_stays_is_learned():
  from relvit_jax.analysis import pytorch_step

  step = pytorch_step.Step(
    {
      "image_size": 8,
      "patch_size": 2,
      "tasks": ["relation", "position"],
      "num_classes": None,
      "pos_embed": False,
      **SIZES,
    },
    batch=4,
    lr=1e-2,
    weight_decay=0.1,
    clip_norm=1.0,
  )
  first, last = step.run(1), step.run(20)
  assert last < first - 0.1
  positions = step.model.vit.embeddings.position_embeddings
  assert not positions.any()
  assert step.peak_bytes() > 10**6
