#!/usr/bin/env bash
#SBATCH --job-name=relvit
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=relvit-%j.out
# Trains on GPU nodes of a SLURM cluster, through as many jobs as it takes.
#
#   sbatch launch/slurm.sh --config=CONFIG --workdir=W [--config.KEY=VALUE …]
#   bash launch/slurm.sh --dry_run --config=CONFIG --workdir=W   prints it only
#
# Submit it in the clone, after `bash launch/environment.sh`; clone and W lie
# where all nodes reach them. What stands after #SBATCH is overruled by the
# flags of sbatch: sbatch --nodes=4 --gpus-per-node=8 launch/slurm.sh …
#
# 120 s before the time limit every task gets SIGTERM, saves and ends with 143,
# and the job puts itself into the queue again; there it goes on by the same
# command. It ends with 0 when the run is finished, and with any other status at
# an error, which is not tried again.
set -euo pipefail

fail() {
  echo "launch/slurm.sh: $*" >&2
  exit 2
}

# Unless this flag of `relvit train` is among the words that follow.
require() {
  local flag=$1 word
  shift
  for word in "$@"; do
    [[ $word != "$flag"=?* ]] || return 0
  done
  fail "$flag=… is missing: relvit train needs it"
}

dry_run=
if [ "${1:-}" = --dry_run ]; then
  dry_run=yes
  shift
fi
require --config "$@"
require --workdir "$@"

# A task that has saved before the others must not end them, whatever the
# cluster's KillOnBadExit says.
train=(srun --kill-on-bad-exit=0 .venv/bin/relvit train "$@")
if [ "$dry_run" ]; then
  printf '%q ' sbatch launch/slurm.sh "$@" | sed 's/ $/\n/'
  printf '%q ' "${train[@]}" | sed 's/ $/\n/'
  exit
fi

[ "${SLURM_JOB_ID:-}" ] \
  || fail "this is no job; submit it: sbatch launch/slurm.sh …"
# SLURM runs a copy of this file, so the clone is where sbatch was called.
cd "$SLURM_SUBMIT_DIR"
[ -x .venv/bin/relvit ] \
  || fail "$PWD has no .venv/bin/relvit: call sbatch in the clone, after" \
    "bash launch/environment.sh"

export PYTHONUNBUFFERED=1
# Since SLURM 22.05 a step is not told by itself what sbatch was.
if [ "${SLURM_CPUS_PER_TASK:-}" ]; then
  export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
fi

# SLURM tells the tasks, and at scancel this shell too: it must outlive them, to
# see how they ended.
trap : TERM
status=0
"${train[@]}" || status=$?
if [ "$status" = 143 ]; then
  echo "launch/slurm.sh: told to stop; job $SLURM_JOB_ID is queued again," \
    "unless it was cancelled"
  # A job that was cancelled is no longer incomplete, and is left alone.
  scontrol requeue Incomplete "$SLURM_JOB_ID"
fi
exit "$status"
