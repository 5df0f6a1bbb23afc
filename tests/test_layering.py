"""The order of the house: a file imports only from files above its own."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "relvit_jax"

# From the top. A new file is one line here; what it may import is what stands
# above it.
ORDER = """
  resize grid
  models.variants models.stages models.kernels models.head_kernels
  models.traffic models.flops
  models.layers models.norms models.by_device models.attention_kernel
  models.attention_tile models.attention_triton models.attention_products
  models.row_tiles models.gelu_triton models.residual_triton
  models.attention models.mlp models.blocks models.vit
  models.windows models.swin_stage models.swin
  models.tokens_to_token models.t2t_vit
  models.heads models.relvit
  config config_limits config_model config_checks compilation_cache accelerators
  large_pages
  data.images data.boxes data.splits
  data.builders.folders data.builders.image_folder
  data.builders.tiny_imagenet data.builders.imagenet100
  data.builders.catalogue
  data.sources data.outlines data.export data.prepare
  data.augment data.colour data.patch_augment data.order
  data.loading data.read_ahead data.shares data.feed
  data.evaluation_feed
  data.tones data.rand_augment data.erasing data.mixing
  data.statistics data.views
  training.drloc training.localisation
  training.pair_tasks training.pair_pass training.pair_blocks
  training.objectives training.metrics training.stacking training.optimizer
  training.distributed training.preemption
  training.partitioning training.model_arrays training.step
  training.transfer training.evaluate
  training.repeating training.hardware training.pieces training.stage
  training.waiting training.loop training.probe
  training.leaves training.logs training.checkpoint_folder training.checkpoint
  training.datasets training.workdir training.progress training.experiment
  training.trained
  interop.torch_official
  analysis.similarity analysis.figures analysis.class_figures
  analysis.gallery analysis.run_curves
  analysis.report analysis.comparison
  analysis.quickstart_page analysis.quickstart analysis.contact_sheet
  analysis.prediction analysis.hlo_text analysis.hlo analysis.residuals
  analysis.model_table
  analysis.timing analysis.machine analysis.part
  analysis.stand_ins analysis.parts
  analysis.op_profile
  analysis.pytorch_step analysis.rival analysis.needs analysis.benchmark
  analysis.benchmark_table analysis.benchmark_sweep analysis.pair_scaling
  analysis.hlo_loops analysis.hlo_traffic analysis.hlo_collectives
  analysis.chips analysis.ahead analysis.plan analysis.plan_search
  analysis.plan_table
  commands.kept commands.train commands.evaluate commands.predict commands.data
  commands.models commands.benchmark_arguments commands.benchmark
  commands.plan commands.quickstart
  cli notebook
"""

MODULES = ORDER.split()

FILES = {
  ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
  for path in sorted(PACKAGE.rglob("*.py"))
  if path.name != "__init__.py"
}


def imported(path):
  """Modules of the package that a file imports, anywhere in it."""
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.ImportFrom) and node.module:
      for name in node.names:
        yield from known(f"{node.module}.{name.name}", node.module)
    elif isinstance(node, ast.Import):
      for name in node.names:
        yield from known(name.name)


def known(*names):
  modules = [name.removeprefix("relvit_jax.") for name in names]
  yield from [module for module in modules if module in FILES][:1]


def test_every_file_has_its_place():
  assert sorted(FILES) == sorted(MODULES)


@pytest.mark.parametrize("module", FILES)
def test_a_file_imports_only_from_above(module):
  above = MODULES[: MODULES.index(module)]
  assert [name for name in imported(FILES[module]) if name not in above] == []


@pytest.mark.parametrize("module", FILES)
def test_files_and_functions_stay_short(module):
  source = FILES[module].read_text(encoding="utf-8")
  assert len(source.splitlines()) < 300
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.FunctionDef):
      length = (node.end_lineno or 0) - node.lineno
      docs = ast.get_docstring(node, clean=False) or ""
      assert length - docs.count("\n") < 60, node.name


def test_every_module_has_its_tests():
  tests = {
    path.stem for path in pathlib.Path(__file__).parent.glob("test_*.py")
  }
  untested = {
    module for module in MODULES if f"test_{module.split('.')[-1]}" not in tests
  }
  # Tested where what they do is: in test_quickstart, test_benchmark,
  # test_experiment and test_prediction.
  assert untested == {
    "analysis.quickstart_page",
    "commands.benchmark_arguments",
    "commands.train",
    "commands.predict",
  }
