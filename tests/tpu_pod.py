"""launch/tpu_pod.sh, beside a gcloud that is none."""

import fake_commands

# What the script is told, and no other.
SETTINGS = {
  "RELVIT_PROJECT": "lab",
  "RELVIT_ZONE": "us-west4-a",
  "RELVIT_TPU_NAME": "pod",
  "RELVIT_TOPOLOGY": "v5e:4x4",
  "RELVIT_BUCKET": "lab-data",
}
WHERE = "--project=lab --zone=us-west4-a"
TRAIN = ["--config=digits:pretrain", "--workdir=/mnt/relvit/runs/a"]


class Pod:
  """The script of a clone, and the commands that it may call."""

  def __init__(self, place, clone):
    self.commands = fake_commands.Commands(place, "gcloud")
    self.clone = clone
    self.commit = fake_commands.commit(clone)

  def __call__(self, *words, **settings):
    """(exit status, output, errors)."""
    line = ["bash", "launch/tpu_pod.sh", *words]
    return self.commands.run(line, self.clone, **SETTINGS | settings)
