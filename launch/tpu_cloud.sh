# shellcheck shell=bash
# The slice that launch/tpu_pod.sh asks the cloud for: what is there, a request,
# the wait for it. That file has call, say, and the flags that are used here.
# shellcheck disable=SC2154

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
  check_bucket
  await
}

# Once a run has begun, what fails is asked again and again: a laptop sleeps, a
# connection breaks.
may_fail() {
  local status=$?
  # 2 is ours, of what will not change.
  if [ ! "$patient" ] || [ "$status" = 2 ]; then
    exit "$status"
  fi
  say "gcloud failed; it is asked again"
}

# Sets state: of resource, or unknown.
look() {
  state=$(resource) || { may_fail && state=unknown; }
}

await() {
  local state requested=
  while :; do
    look
    case $state:$requested in
      unknown:*) ;;
      ready:*)
        say "$name is ready"
        return
        ;;
      waiting:*) say "$name: waiting" ;;
      failed:yes) fail "the request failed; see why:" \
        "$(quoted gcloud compute tpus queued-resources describe "$name" \
          --project="$project" --zone="$zone")" ;;
      absent:*)
        request || may_fail
        requested=yes
        ;;
      *)
        say "$name is $state: it is deleted and requested again"
        { delete && request; } || may_fail
        requested=yes
        ;;
    esac
    [ -z "$dry_run" ] || return 0
    sleep "$poll"
  done
}
