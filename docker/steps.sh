#!/bin/sh
# The steps of the image. `Dockerfile` runs them in a container, `docker/clean_root.sh` in a folder of files.
#   build     compiler, and an empty environment /opt/meta-ood
#   torch     PyTorch from $TORCH_INDEX: the CPU build, or the one of PyPI, which brings CUDA's libraries
#   package   the wheel of this source, with the clients of PostgreSQL and S3
#   run       what the environment needs in the image, and a user without rights
set -eu
HERE=$(dirname "$(dirname "$(readlink -f "$0")")")
export DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# bytecode is 270 MB; what a container uses of it, it writes to its /tmp (PYTHONPYCACHEPREFIX in the Dockerfile)
export PIP_NO_COMPILE=1
PYTHON=/opt/meta-ood/bin/python

packages() {
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "$@"
  apt-get clean
  rm -rf /var/lib/apt/lists/*
}

case "$1" in
build)
  packages ca-certificates g++ python3-dev python3-venv
  python3 -m venv /opt/meta-ood
  ;;
torch)
  $PYTHON -m pip install -q --index-url "${TORCH_INDEX:?}" -c "$HERE/constraints.txt" torch torchvision
  ;;
package)
  $PYTHON -m pip install -q -c "$HERE/constraints.txt" "$HERE[server,s3]"
  # what nothing imports: tests of packages, and headers for those who compile against them
  cd /opt/meta-ood/lib/python3*/site-packages
  find . -type d \( -name tests -o -name __pycache__ -o -path ./torch/test -o -path ./torch/include -o -path ./pyarrow/include \) -prune -exec rm -rf {} +
  find torch/bin -type f ! -name torch_shm_manager -delete
  # sources of compiled modules, static libraries, and Arrow's RPC; ours stay, whose digest the stage `code` writes
  find . -path ./meta_ood -prune -o -type f \( -name '*.c' -o -name '*.cpp' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.a' -o -path './pyarrow/*flight*' \) -exec rm {} +
  ;;
run)
  # git: DVC and the tags of runs; libgomp1: the kernels
  packages ca-certificates git libgomp1 python3
  useradd --create-home --uid 1000 meta-ood
  install -d -o meta-ood /work
  ;;
*)
  echo "$1: expected build, torch, package or run" >&2
  exit 2
  ;;
esac
