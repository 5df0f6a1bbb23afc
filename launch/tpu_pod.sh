#!/usr/bin/env bash
# Trains on a Cloud TPU slice of any number of hosts: launch/README.md tells
# how, launch/tpu_pod.sh --help lists all flags.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

. launch/tpu_flags.sh
. launch/tpu_cloud.sh

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

# on_hosts WORKER COMMAND; a host that is gone is given up after 90 s.
on_hosts() {
  call gcloud compute tpus tpu-vm ssh "$name" --project="$project" \
    --zone="$zone" --worker="$1" --ssh-flag="-o ServerAliveInterval=30" \
    --command="$2"
}

# What trains must be a commit: a run is known by one, and later hosts get the
# same. An untracked file may be a config that was meant.
check_clone() {
  [ "$dry_run" ] || [ -z "$(git status --porcelain)" ] || fail "commit first:" \
    "the last commit is what is copied, and there are changes or new files"
}

setup() {
  local archive=build/relvit_jax.tar.gz
  call mkdir -p build \
    && call git archive --format=tar.gz --output="$archive" "$commit" \
    && call gcloud compute tpus tpu-vm scp "$archive" \
      "$name:relvit_jax.tar.gz" --project="$project" --zone="$zone" \
      --worker=all \
    && on_hosts all "rm -rf relvit_jax.new && mkdir relvit_jax.new \
&& tar -xzf relvit_jax.tar.gz -C relvit_jax.new \
&& bash relvit_jax.new/$host setup $bucket $commit"
}

train() {
  on_hosts all "bash relvit_jax/$host train $(quoted "${words[@]}")"
}

logs() {
  on_hosts "$worker" "sudo journalctl --unit=relvit --output=cat --lines=200 --follow"
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

# Sets verdict: running, finished, again, unreached, or an exit status; and
# commit, where one trains: after a preemption it goes on.
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
    commit=$(awk -v here="$commit" '$3 == "running" && $4 { here = $4 }
      END { print here }' <<< "$said")
    git cat-file -e "$commit" 2> /dev/null || fail "the hosts train commit" \
      "$commit, which is not in this clone"
  elif grep -qE '^(143|absent)$' <<< "$states"; then
    verdict=again
  else
    verdict=$(grep -v '^0$' <<< "$states" | head -n 1 || true)
    verdict=${verdict:-finished}
  fi
}

# Three times while the machines are there: a package index or a connection may
# fail once.
tried() {
  local state left=2
  until "$@"; do
    look
    case $state:$left in
      unknown:*) ;;
      ready:[1-9]) left=$((left - 1)) ;;
      *) return 1 ;;
    esac
    say "$1 failed; it is tried again"
    sleep "$poll"
  done
}

# One stretch of training, from a slice that is ready to its end or loss.
stretch() {
  local state
  [ "$verdict" = running ] || judge
  if [ "$verdict" != running ] || [ "$dry_run" ]; then
    verdict=1
    tried setup || return 0
  fi
  verdict=1
  tried train || return 0
  verdict=running
  while [ "$verdict" = running ]; do
    [ "$dry_run" ] || sleep "$poll"
    judge
    if [ "$verdict" = unreached ]; then
      look
      case $state in
        ready | unknown)
          say "the hosts did not answer; they are asked again"
          verdict=running
          ;;
      esac
    fi
  done
}

run() {
  local state verdict=
  check_bucket
  # What trains already needs nothing of this clone.
  [ "$(resource)" != ready ] || judge
  [ "$verdict" = running ] || check_clone
  [ "$dry_run" ] || trap 'say "what is there costs on;" \
    "launch/tpu_pod.sh status, delete"' EXIT
  while :; do
    await
    patient=yes
    stretch
    [ -z "$dry_run" ] || return 0
    [ "$verdict" != finished ] || ended 0 "the training has ended"
    say "the training has stopped: $verdict"
    # The cloud may tell later than the hosts that it took one of them.
    sleep "$poll"
    look
    if [[ $state:$verdict =~ ^ready:[0-9]+$ ]]; then
      ended "$verdict" "that is an error, not a preemption"
    fi
  done
}

# ended STATUS WHAT: the end of a run, after which nothing is waited for.
ended() {
  trap - EXIT
  say "$2"
  if [ "$delete_after" ]; then
    on_hosts all "bash relvit_jax/$host keep /mnt/relvit/journals/$name" \
      || say "what the hosts printed could not be kept"
    delete
  else
    say "launch/tpu_pod.sh logs; and delete, or it costs on"
  fi
  exit "$1"
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
commit=$(git rev-parse HEAD)
patient=
[ "$command" != setup ] || check_clone
"$command"
