#!/usr/bin/env bash
# Trains on a Cloud TPU slice of any number of hosts: launch/README.md tells
# how, launch/tpu_pod.sh --help lists all flags.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

. launch/tpu_flags.sh

readonly host=launch/tpu_host.sh

say() {
  echo "launch/tpu_pod.sh: $*" >&2
}

# Words as they can be pasted into a shell.
quoted() {
  local word flag line=()
  for word in "$@"; do
    flag=
    [[ ! $word =~ ^--[a-z._-]+= ]] || flag=${BASH_REMATCH[0]}
    word=${word#"$flag"}
    [[ $word =~ ^[A-Za-z0-9_@%+=:,./~-]+$ ]] || word=${word@Q}
    line+=("$flag$word")
  done
  echo "${line[*]}"
}

# Runs a command; in a dry run prints it, past what takes its output.
exec 3>&1
call() {
  if [ "$dry_run" ]; then
    quoted "$@" >&3
  else
    "$@"
  fi
}

queued() {
  call gcloud compute tpus queued-resources "$@" --project="$project" \
    --zone="$zone"
}

# What a list says of our name. A list, since `describe` fails alike for what is
# not there and for anything else, such as a login that ran out.
ours() {
  awk -v name="$name" '$1 == name { print $2, $3 }' | sed 's/ $//'
}

# absent, waiting, ready, lost or failed.
resource() {
  local state columns='value(name.basename(),state.state)'
  state=$(queued list --format="$columns" | ours) || exit
  case $state in
    "") echo absent ;;
    SUSPENDED) echo lost ;;
    FAILED) echo failed ;;
    CREATING | ACCEPTED | PROVISIONING | WAITING_FOR_RESOURCES | SUSPENDING | \
      DELETING) echo waiting ;;
    ACTIVE) machines ;;
    *) fail "the queued resource $name is in state $state, of which this" \
      "script knows nothing" ;;
  esac
}

# The same of the machines of an active request; those of a preempted one may
# be known to be lost before it is.
machines() {
  local found state type columns='value(name.basename(),state,acceleratorType)'
  found=$(call gcloud compute tpus tpu-vm list --project="$project" \
    --zone="$zone" --format="$columns" | ours) || exit
  read -r state type <<< "$found"
  [ "${type:-$accelerator_type}" = "$accelerator_type" ] || fail "$name is" \
    "a $type, and --topology=$topology a $accelerator_type: delete it first," \
    "or give another --name"
  case $state in
    READY) echo ready ;;
    "" | PREEMPTED | TERMINATED) echo lost ;;
    CREATING | STARTING | RESTARTING | REIMAGING | REPAIRING | STOPPING | \
      DELETING) echo waiting ;;
    *) fail "the machines of $name are in state $state: start them, or" \
      "launch/tpu_pod.sh delete" ;;
  esac
}

request() {
  queued create "$name" --node-id="$name" "${accelerator[@]}" \
    --runtime-version="$runtime_version" "${tier[@]}" \
    --valid-until-duration="$valid_until"
}

delete() {
  # With --force its machines go too, whatever state they are in.
  queued delete "$name" --force --quiet
}

check_bucket() {
  local found
  found=$(call gcloud storage buckets describe "gs://$bucket" \
    --project="$project" --format="value(hierarchical_namespace.enabled)") \
    || fail "--bucket=$bucket cannot be read"
  [ "$dry_run" ] || [ "$found" = True ] || fail "--bucket=$bucket must have a" \
    "hierarchical namespace, without which a checkpoint is not renamed at once"
}

create() {
  local state requested=
  check_bucket
  while :; do
    state=$(resource) || exit
    case $state:$requested in
      ready:*)
        say "$name is ready"
        return
        ;;
      waiting:*) say "$name: waiting" ;;
      failed:yes) fail "the request failed; see why:" \
        "$(quoted gcloud compute tpus queued-resources describe "$name" \
          --project="$project" --zone="$zone")" ;;
      absent:*)
        request
        requested=yes
        ;;
      *)
        say "$name is $state: it is deleted and requested again"
        delete
        request
        requested=yes
        ;;
    esac
    [ -z "$dry_run" ] || return 0
    sleep "$poll"
  done
}

# on_hosts WORKER COMMAND
on_hosts() {
  call gcloud compute tpus tpu-vm ssh "$name" --project="$project" \
    --zone="$zone" --worker="$1" --command="$2"
}

setup() {
  local archive=build/relvit_jax.tar.gz
  # What trains must be a commit: a run is known by one, and later hosts get the
  # same. An untracked file may be a config that was meant.
  [ "$dry_run" ] || [ -z "$(git status --porcelain)" ] || fail "commit first:" \
    "setup copies the last commit, and there are changes or new files"
  call mkdir -p build \
    && call git archive --format=tar.gz --output="$archive" HEAD \
    && call gcloud compute tpus tpu-vm scp "$archive" \
      "$name:relvit_jax.tar.gz" --project="$project" --zone="$zone" \
      --worker=all \
    && on_hosts all "rm -rf relvit_jax.new && mkdir relvit_jax.new \
&& tar -xzf relvit_jax.tar.gz -C relvit_jax.new \
&& bash relvit_jax.new/$host setup $bucket"
}

train() {
  on_hosts all "bash relvit_jax/$host train $(quoted "${words[@]}")"
}

logs() {
  on_hosts 0 "sudo journalctl --unit=relvit --output=cat --lines=200 --follow"
}

# Where nothing was set up, nothing trains.
hosts() {
  on_hosts all "if [ -d relvit_jax ]; then bash relvit_jax/$host status; \
else echo relvit \$(hostname) absent; fi"
}

status() {
  queued list
  hosts
}

# Sets verdict: running, finished, again, unreached, or an exit status.
#
# A host that was told to stop, or started anew, makes the others fail: their
# statuses count only if there is none such.
judge() {
  local said states
  verdict=unreached
  said=$(hosts) || return 0
  [ -z "$dry_run" ] || { verdict=finished && return; }
  states=$(awk '$1 == "relvit" { print $3 }' <<< "$said")
  if [ -z "$states" ]; then
    return
  elif grep -q running <<< "$states"; then
    verdict=running
  elif grep -qE '^(143|absent)$' <<< "$states"; then
    verdict=again
  else
    verdict=$(grep -v '^0$' <<< "$states" | head -n 1 || true)
    verdict=${verdict:-finished}
  fi
}

# One stretch of training, from a slice that is ready to its end or loss.
stretch() {
  judge
  if [ "$verdict" != running ] || [ "$dry_run" ]; then
    verdict=unreached
    setup || return 0
  fi
  verdict=unreached
  train || return 0
  verdict=running
  while [ "$verdict" = running ]; do
    [ "$dry_run" ] || sleep "$poll"
    judge
    if [ "$verdict" = unreached ] && [ "$(resource)" = ready ]; then
      say "the hosts did not answer; they are asked again"
      verdict=running
    fi
  done
}

run() {
  local verdict
  while :; do
    create
    stretch
    [ -z "$dry_run" ] || return 0
    if [ "$verdict" = finished ]; then
      say "the training has ended; launch/tpu_pod.sh delete, or it costs on"
      return
    fi
    say "the training has stopped: $verdict"
    # The cloud may tell later than the hosts that it took one of them.
    sleep "$poll"
    if [ "$verdict" != again ] && [ "$(resource)" = ready ]; then
      say "that is an error, not a preemption; launch/tpu_pod.sh logs"
      [[ $verdict =~ ^[0-9]+$ ]] && exit "$verdict"
      exit 1
    fi
  done
}

command=${1:---help}
shift || true
case $command in
  create | setup | train | logs | status | run | delete) ;;
  resume) command=run ;;
  --help | -h | help)
    usage
    exit
    ;;
  *) fail "'$command' must be create, setup, train, logs, status, run, resume" \
    "or delete" ;;
esac
read_flags "$@"
check_flags
"$command"
