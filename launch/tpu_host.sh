#!/usr/bin/env bash
# What launch/tpu_pod.sh runs on every host of a TPU slice; it is copied there.
#
#   tpu_host.sh setup BUCKET COMMIT  mounts the bucket, installs this copy of
#                                    the clone, which is of that commit
#   tpu_host.sh train WORDS   starts `relvit train WORDS`, as a service
#   tpu_host.sh status        prints: relvit HOST STATE COMMIT, where the state
#                             is absent, running, or an exit status
#   tpu_host.sh keep FOLDER   copies there what it printed
#
# The training is a service of systemd, so that it outlives the connection, is
# told by SIGTERM when the host shuts down, and keeps its exit status.
set -euo pipefail

readonly place=/mnt/relvit

fail() {
  echo "launch/tpu_host.sh: $*" >&2
  exit 2
}

property() {
  systemctl show relvit --property="$1" --value
}

# absent, running, or the exit status; 128 + N after a signal N.
state() {
  local status
  case $(property SubState) in
    dead) echo absent ;;
    exited | failed)
      status=$(property ExecMainStatus)
      [ "$(property ExecMainCode)" = 1 ] || status=$((128 + status))
      echo "$status"
      ;;
    *) echo running ;;
  esac
}

install_gcsfuse() {
  local repository keys=/usr/share/keyrings/cloud.google.asc
  repository=gcsfuse-$(lsb_release --codename --short)
  curl --fail --silent --show-error \
    https://packages.cloud.google.com/apt/doc/apt-key.gpg \
    | sudo tee "$keys" > /dev/null
  echo "deb [signed-by=$keys] https://packages.cloud.google.com/apt" \
    "$repository main" \
    | sudo tee /etc/apt/sources.list.d/gcsfuse.list > /dev/null
  # A new machine installs its own updates first, and holds the lock.
  sudo apt-get -o DPkg::Lock::Timeout=600 update --quiet
  sudo apt-get -o DPkg::Lock::Timeout=600 install --quiet --yes gcsfuse
}

# By fstab, so that the bucket is back after a reboot, and systemd unmounts it
# after the training has saved and before the network goes.
mount_bucket() {
  local options config=/etc/relvit-gcsfuse.yaml
  command -v gcsfuse > /dev/null || install_gcsfuse
  # On TPU machines gcsfuse keeps what it knows of files for ever unless it is
  # told otherwise, and a host would not see what another has written.
  sudo tee "$config" > /dev/null << END
metadata-cache:
  ttl-secs: 0
  negative-ttl-secs: 0
file-system:
  kernel-list-cache-ttl-secs: 0
END
  sudo mkdir -p "$place"
  sudo sed -i "\\| $place gcsfuse |d" /etc/fstab
  options="rw,_netdev,allow_other,uid=$(id -u),gid=$(id -g),config_file=$config"
  echo "$1 $place gcsfuse $options 0 0" | sudo tee --append /etc/fstab \
    > /dev/null
  sudo systemctl daemon-reload
  # Not by mount: gcsfuse would belong to this login, and end before the unit
  # that trains.
  sudo systemctl restart "$(systemd-escape --path --suffix=mount "$place")"
}

# The images of TPU VMs come with Python 3.10: uv brings another one for this
# user alone.
find_python() {
  local uv=$HOME/.local/bin/uv suits="(3, 11) <= sys.version_info < (3, 14)"
  if ! python3 -c "import sys; sys.exit(not $suits)"; then
    python3 -m pip install --quiet --user uv
    "$uv" python install --quiet 3.12
    PATH=$(dirname "$("$uv" python find --managed-python 3.12)"):$PATH
  fi
}

setup() {
  [ "$(state)" != running ] \
    || fail "the training runs; its code is not changed under it"
  cd "$HOME"
  # What is installed stays, and is brought up to date.
  [ ! -d relvit_jax/.venv ] || mv relvit_jax/.venv relvit_jax.new/
  rm -rf relvit_jax
  mv relvit_jax.new relvit_jax
  echo "$2" > relvit_jax/.commit
  mount_bucket "$1"
  find_python
  RELVIT_ACCELERATOR=tpu bash relvit_jax/launch/environment.sh
}

train() {
  local words="relvit train $*"
  if [ "$(state)" = running ]; then
    [ "$(property Description)" = "$words" ] \
      || fail "another training runs: $(property Description)"
    echo "It runs already: $words"
    return
  fi
  # What is left of the last one is its exit status.
  sudo systemctl stop relvit 2> /dev/null || true
  sudo systemctl reset-failed relvit 2> /dev/null || true
  # A service does not get the limits of a login, by which this user may pin
  # memory for the chips. 25 s: a spot machine is switched off 30 s after it was
  # told. SIGTERM goes to the main process alone, which ends the others. What the
  # first host compiled all find in the bucket, the next time on new machines.
  sudo systemd-run --quiet --unit=relvit --description="$words" \
    --uid="$(id -u)" --gid="$(id -g)" \
    --working-directory="$HOME/relvit_jax" --setenv=PYTHONUNBUFFERED=1 \
    --setenv=JAX_COMPILATION_CACHE_DIR="$place/compiled" \
    --property=RemainAfterExit=yes --property=RequiresMountsFor="$place" \
    --property=LimitMEMLOCK=infinity --property=LimitNOFILE=65536 \
    --property=KillMode=mixed --property=TimeoutStopSec=25 \
    "$HOME/relvit_jax/.venv/bin/relvit" train "$@"
  echo "It runs: $words"
}

keep() {
  mkdir -p "$1"
  sudo journalctl --unit=relvit --output=short-iso \
    | tee "$1/$(hostname)-$(date +%Y%m%d-%H%M%S).txt" > /dev/null
}

case ${1:-} in
  setup) setup "$2" "$3" ;;
  train) train "${@:2}" ;;
  status) echo "relvit $(hostname) $(state) $(cat "$HOME/relvit_jax/.commit")" ;;
  keep) keep "$2" ;;
  *) fail "'${1:-}' must be setup, train, status or keep" ;;
esac
