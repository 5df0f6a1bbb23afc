"""Backbones by name."""

import subprocess
import sys

import numpy as np
import pytest

from relvit_jax.models import variants


def test_a_family_stands_for_the_papers_variant():
  assert variants.sizes_of("vit") == variants.sizes_of("vit_small")
  assert variants.sizes_of("vit_small") == {
    "embed_dim": 384,
    "depth": 12,
    "num_heads": 6,
  }


def test_localisation_comes_beside_the_papers_tasks():
  assert (*variants.TASKS, "drloc") == variants.ALL_TASKS


def test_a_stage_of_swin_has_its_own_depth_and_heads():
  assert variants.sizes_of("swin") == variants.sizes_of("swin_tiny")
  assert variants.sizes_of("swin_tiny") == {
    "embed_dim": 96,
    "depth": (2, 2, 6, 2),
    "num_heads": (3, 6, 12, 24),
    "window_size": 7,
  }


def test_the_family_of_a_name():
  families = {
    name: variants.family_of(name) for name in ("swin", *variants.SIZES)
  }
  assert families["swin"] == families["swin_base"] == "swin"
  assert families["vit_tiny"] == "vit"
  assert set(families.values()) == set(variants.FAMILIES)


@pytest.mark.parametrize(
  ("backbone", "patch_size", "depth", "shown"),
  [
    ("vit", 4, None, 4),
    ("swin_tiny", 4, None, 32),
    ("swin", 2, (2, 2), 4),
    ("t2t_vit_14", None, None, 32),
  ],
)
def test_patches_are_as_large_as_the_heads_see_them(
  backbone, patch_size, depth, shown
):
  assert variants.shown_patch(backbone, patch_size, depth) == shown


@pytest.mark.parametrize(
  ("backbone", "family"),
  [
    ("vit", "vit"),
    ("vit_tiny", "vit"),
    ("t2t_vit", "t2t_vit"),
    ("t2t_vit_t_19", "t2t_vit"),
  ],
)
def test_the_family_of_a_variant(backbone, family):
  assert variants.family_of(backbone) == family


def test_every_variant_has_one_family():
  for variant in variants.SIZES:
    assert (
      sum(variant.startswith(family) for family in variants.FAMILIES) == 1
    ), variant


def test_t2t_vit_is_the_papers_t2t_vit_14():
  assert variants.sizes_of("t2t_vit") == {
    "embed_dim": 384,
    "depth": 14,
    "num_heads": 6,
    "mlp_ratio": 3.0,
    "tokens_type": "performer",
  }


def test_other_names_are_refused_with_those_there_are():
  with pytest.raises(ValueError, match=r"'vgg' does not exist; .* vit_tiny"):
    variants.sizes_of("vgg")


def test_it_imports_nothing():
  code = (
    "import sys; from relvit_jax.models import variants; "
    "print({'jax', 'numpy', 'flax'} & set(sys.modules))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == "set()"


def test_sizes_of_stages_have_two_names():
  for name in ("depths", "depth"):
    made = variants.complete("swin", {name: (1, 2), "num_heads": (1, 2)})
    assert made["depth"] == (1, 2)
    assert made["embed_dim"] == 96
  with pytest.raises(ValueError, match=r"depths=\(1,\) and depth=\(2,\)"):
    variants.complete("swin", {"depths": (1,), "depth": (2,)})
  with pytest.raises(ValueError, match="depths=2 is no size of a vit"):
    variants.complete("vit", {"depths": 2})


def test_sizes_may_be_numpys():
  made = variants.complete(
    "vit", {"depth": np.int64(3), "mlp_ratio": np.float32(2)}
  )
  assert made["depth"] == 3
  made = variants.complete("swin", {"depths": tuple(np.array([1, 2]))})
  assert made["depth"] == (1, 2)
