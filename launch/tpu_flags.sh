# shellcheck shell=bash
# The flags of launch/tpu_pod.sh: what they are, and what they must be. That
# file sets command, and uses what is set here.
# shellcheck disable=SC2034,SC2154

usage() {
  cat << 'END'
launch/tpu_pod.sh COMMAND [FLAGS] [-- WORDS OF relvit train]

  create   requests the slice and waits for it; one that is there is used, one
           that is lost (preempted, failed) is deleted and requested again
  setup    copies the last commit of this clone to all hosts, mounts the bucket
           at /mnt/relvit, installs
  train    starts relvit train on all hosts, and returns
  logs     follows what the first host prints
  status   tells what there is, and how the training stands on every host
  run      create, setup, train, wait; again after a preemption, until the
           training has ended. The same line again goes on, whatever happened
  resume   the same as run
  delete   deletes the slice; the bucket stays

Flag                    From              What
--project=ID            RELVIT_PROJECT    Google Cloud project
--zone=ZONE             RELVIT_ZONE       such as us-west4-a
--name=NAME             RELVIT_TPU_NAME   of the slice; default: relvit
--topology=KIND:SHAPE   RELVIT_TOPOLOGY   v4, v5e, v5p or v6e and its chips, as
                                          for relvit plan: v5e:4x8, v4:2x2x4
--bucket=NAME           RELVIT_BUCKET     with a hierarchical namespace
--spot                                    cheaper, and may be preempted
--reserved                                of a reservation of the project
--valid_until=DURATION                    how long a request may wait, such as
                                          90m, 6h; default: 1d
--runtime_version=V                       the machines' image, if not the usual
--worker=NUMBER                           whose logs; default: 0, the first
--poll=SECONDS                            between two looks; default: 60
--delete                                  at the end of run, or at an error,
                                          delete the slice
--dry_run                                 prints the commands, calls none

Exit status of run: 0 after a finished training, else that of the training.
END
}

fail() {
  echo "launch/tpu_pod.sh: $*" >&2
  exit 2
}

read_flags() {
  project=${RELVIT_PROJECT:-}
  zone=${RELVIT_ZONE:-}
  name=${RELVIT_TPU_NAME:-relvit}
  topology=${RELVIT_TOPOLOGY:-}
  bucket=${RELVIT_BUCKET:-}
  valid_until=1d
  runtime_version=
  poll=60
  worker=0
  delete_after=
  tier=()
  dry_run=
  words=()
  while [ $# -gt 0 ]; do
    case $1 in
      --project=* | --zone=* | --name=* | --topology=* | --bucket=* | \
        --valid_until=* | --runtime_version=* | --poll=* | --worker=*)
        local flag=${1%%=*}
        printf -v "${flag#--}" %s "${1#*=}"
        ;;
      --spot | --reserved) tier+=("$1") ;;
      --delete) delete_after=yes ;;
      --dry_run) dry_run=yes ;;
      --)
        words=("${@:2}")
        break
        ;;
      *) fail "there is no flag '$1'; launch/tpu_pod.sh --help lists them" ;;
    esac
    shift
  done
}

# check FLAG VALUE PATTERN WHAT: what the value must be, in words.
check() {
  [[ $2 =~ ^($3)$ ]] || fail "$1='$2' must be $4"
}

check_flags() {
  local label='[a-z]([-a-z0-9]*[a-z0-9])?' word given=
  check --project "$project" "$label" "the ID of a project, such as my-lab-1"
  check --zone "$zone" "$label-[a-z]" "a zone, such as us-west4-a"
  check --name "$name" "$label" "lower-case letters, digits and hyphens"
  check --valid_until "$valid_until" '[1-9][0-9]*[smhd]' \
    "a number of s, m, h or d, such as 6h"
  check --poll "$poll" '[0-9]+' "a number of seconds"
  check --worker "$worker" '[0-9]+|all' "the number of a host, or all"
  [ ${#tier[@]} -lt 2 ] || fail "${tier[*]}: there can be one of --spot" \
    "and --reserved, once"
  case $command in create | run) check_topology ;; esac
  case $command in
    create | setup | run)
      check --bucket "$bucket" '[a-z0-9][-_.a-z0-9]+[a-z0-9]' \
        "the name of a bucket, without gs://"
      ;;
  esac
  case $command in
    train | run)
      for word in "${words[@]}"; do
        case $word in
          --config=?*) given+=config ;;
          --workdir=/mnt/relvit/?*) given+=workdir ;;
          --workdir=*) fail "$word must lie in /mnt/relvit/, the bucket," \
            "which all hosts reach" ;;
        esac
      done
      [[ $given == *config* && $given == *workdir* ]] || fail "relvit train" \
        "needs -- --config=… --workdir=/mnt/relvit/…; it got '${words[*]}'"
      ;;
    *) [ ${#words[@]} = 0 ] || fail "$command takes no words after --" ;;
  esac
}

# Sets accelerator and accelerator_type, as gcloud calls this topology, and the
# usual image.
# https://cloud.google.com/tpu/docs/v5e and its neighbours have the shapes.
check_topology() {
  local kind=${topology%%:*} shape=${topology#*:} chips image
  local flat='1x1|2x2|2x4|4x4|4x8|8x8|8x16|16x16' side='[1-9][0-9]*' cube
  cube="${side}x${side}x$side"
  check --topology "$topology" "v5e:($flat)|v6e:($flat)|v4:$cube|v5p:$cube" \
    "v5e or v6e and ${flat//|/, }, or v4 or v5p and a shape such as 2x2x4"
  chips=$((${shape//x/*}))
  # The names of v4 and v5p count cores, two a chip, and leave the shape open.
  case $kind in
    v4) accelerator_type=v4-$((2 * chips)) image=tpu-ubuntu2204-base ;;
    v5e) accelerator_type=v5litepod-$chips image=v2-alpha-tpuv5-lite ;;
    v5p) accelerator_type=v5p-$((2 * chips)) image=v2-alpha-tpuv5 ;;
    v6e) accelerator_type=v6e-$chips image=v2-alpha-tpuv6e ;;
  esac
  case $kind in
    v5e | v6e) accelerator=("--accelerator-type=$accelerator_type") ;;
    *) accelerator=("--type=$kind" "--topology=$shape") ;;
  esac
  runtime_version=${runtime_version:-$image}
}
