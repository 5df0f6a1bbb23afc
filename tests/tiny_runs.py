"""The smallest runs that do all a run does."""

SIZES = {
  "num_steps": 8,
  "steps_per_dispatch": 3,
  "eval_every": 4,
  "batch_size": 16,
  "eval_batch_size": 16,
  "model.backbone": "vit",
  "model.embed_dim": 12,
  "model.depth": 1,
  "model.num_heads": 2,
}

# A run long enough to be stopped, of all that draws random numbers.
RANDOM = {
  "num_steps": 120,
  "steps_per_dispatch": 7,
  "eval_every": 20,
  "augment.permute_patches": True,
  "augment.patch_jitter": 0.5,
  "augment.repeats": 2,
  "augment.erasing": 0.25,
  "augment.mixup_alpha": 0.8,
  "augment.cutmix_alpha": 1.0,
  "model.dropout_rate": 0.1,
  "model.drop_path_rate": 0.1,
  "loss.relation_dropout": 0.1,
  "optimizer.ema_decay": 0.9,
}


def typed(config_name, workdir, **keys):
  """`relvit train …` as a list of words."""
  overrides = [
    f"--config.{key}={value}" for key, value in (SIZES | keys).items()
  ]
  return [
    "train",
    f"--config={config_name}",
    f"--workdir={workdir}",
    *overrides,
  ]
