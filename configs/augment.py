"""How images change before the model sees them: the group `augment`.

Its keys belong to `common.py`, whose introduction says what the brackets mean.
"""

from typing import Any

from ml_collections.config_dict import FieldReference


def group(pretrain: bool) -> dict[str, Any]:
  """The defaults, which change patches while pre-training only."""
  return {
    # pad (shift by up to crop_padding pixels, black comes in), resized (a
    # random part, resized) or none. [paper]: pad at native size, resized
    # otherwise.
    "crop": "pad",
    "crop_padding": 4,
    # Share of the area, and width by height, of a resized crop. [paper]
    "crop_scale": (0.08, 1.0),
    "crop_ratio": (3 / 4, 4 / 3),
    # Chance of a mirrored image. [paper], digits of SVHN included.
    "flip": 0.5,
    # Views of an image that a batch holds. Above 1 an epoch has as many
    # steps, and shows that many times fewer images. [paper]: 1.
    "repeats": 1,
    # RandAugment: operations an image, 0 for none, and their magnitude:
    # mean, of 10, and deviation. [paper]: none.
    "rand_augment": 0,
    "rand_magnitude": 9.0,
    "rand_deviation": 0.5,
    # Chance of a box of noise in the normalised image. [paper]: none.
    "erasing": 0.0,
    # Mixup and cutmix: Beta(alpha, alpha) is the share of each image that
    # is kept, and 0 turns one off; the chance of an image to be mixed at
    # all, and then to be cut. [paper]: none. Mixing leaves every pixel
    # where it is: the pair tasks are asked about the mixed image as about
    # any, and their targets stay true, as in VTs-Drloc. [choice]
    "mixup_alpha": 0.0,
    "cutmix_alpha": 0.0,
    "mix_probability": 1.0,
    "cutmix_share": 0.5,
    # While evaluating: share of the shorter side that the central square
    # has. None: the whole image. [paper]: 224/256 for Flower-102 and
    # ImageNet-100.
    "eval_crop": FieldReference(None, field_type=float),
    # Patches a side after merging neighbours along an uneven grid into
    # mega-patches, each resized to a patch; 0: none. [paper]: 5 of 7.
    "mega_patches": 0,
    # [quirk]: cuts of the columns are those of the rows, which leaves 15
    # layouts of 225; the resize has no antialias (torchvision 0.9); images
    # are cut at random while evaluating, too.
    "mega_same_cuts": False,
    "mega_antialias": True,
    "mega_while_evaluating": False,
    # Each patch is cropped to 1 / patch_crop of its side and resized
    # back; 1: not. [paper]: 1.15 while pre-training.
    "patch_crop": 1.15 if pretrain else 1.0,
    # Chance of a patch to be jittered, and by how much: brightness,
    # contrast, saturation, hue. [paper]: while pre-training.
    "patch_jitter": 0.8 if pretrain else 0.0,
    "jitter_strength": (0.4, 0.4, 0.4, 0.1),
    # Chance of a patch to turn grey. [paper]: while pre-training.
    "patch_grey": 0.2 if pretrain else 0.0,
    # [quirk]: the official code jitters after it has normalised, and so
    # cuts off all values below the mean, of 80 % of the patches.
    "jitter_after_normalise": False,
    # Whether patches are shown in random order, pixels and targets
    # together. [paper]: off in all scripts.
    "permute_patches": False,
    # [quirk]: without any patch transform the official code permutes the
    # targets and leaves the pixels where they are.
    "permute_targets_only": False,
  }
