#!/usr/bin/env bash
# Makes .venv in this clone and installs relvit_jax into it, editable.
#
#   bash launch/environment.sh            what this machine's accelerator needs
#   bash launch/environment.sh test,lint  these extras besides
#
# RELVIT_ACCELERATOR=cpu|cuda12|cuda13|tpu overrules what is found. Needs
# python3 (3.11 to 3.13) with pip; run it again after a change of setup.cfg.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "launch/environment.sh: $*" >&2
  exit 1
}

# The CUDA release of the driver, as nvidia-smi prints it, picks the wheels.
found_accelerator() {
  local cuda=""
  if command -v nvidia-smi > /dev/null; then
    cuda=$(nvidia-smi 2> /dev/null \
      | sed -n 's/.*CUDA Version: \([0-9]*\).*/\1/p' | head -n 1)
  fi
  if [ -n "$cuda" ] && [ "$cuda" -ge 13 ]; then
    echo cuda13
  elif [ "$cuda" = 12 ]; then
    echo cuda12
  elif [ -e /dev/accel0 ] || [ -e /dev/vfio/0 ]; then
    echo tpu
  else
    echo cpu
  fi
}

python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
  || fail "python3 is $(python3 --version 2>&1); 3.11, 3.12 or 3.13 is needed"

accelerator=${RELVIT_ACCELERATOR:-$(found_accelerator)}
extras=${1:-}
case "$accelerator" in
  cpu) ;;
  cuda12 | cuda13 | tpu) extras=${extras:+$extras,}$accelerator ;;
  *) fail "RELVIT_ACCELERATOR=$accelerator must be cpu, cuda12, cuda13 or tpu" ;;
esac

# pip only warns of an extra that does not exist, and goes on without it.
known=$(awk '/^\[/ { inside = /extras_require/ } inside && /^[a-z]/ { print $1 }' \
  setup.cfg)
for extra in ${extras//,/ }; do
  grep -qx "$extra" <<< "$known" \
    || fail "there is no extra '$extra'; there are ${known//$'\n'/, }"
done

# Debian's python3 comes without ensurepip: there the outer pip installs.
pip=(.venv/bin/python -m pip)
if python3 -c 'import ensurepip' 2> /dev/null; then
  python3 -m venv .venv
else
  python3 -m venv --without-pip .venv
  pip=(python3 -m pip --python .venv/bin/python)
fi
echo "Installing relvit_jax${extras:+[$extras]} into .venv for $accelerator …"
"${pip[@]}" install --quiet --editable ".${extras:+[$extras]}"
