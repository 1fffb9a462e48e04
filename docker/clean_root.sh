#!/bin/bash
# Runs the steps of the Dockerfile without a container runtime, as root, in folders that debootstrap fills with the
# Debian that the image starts from, and checks the result:   docker/clean_root.sh FOLDER
#
# TORCH_STEP replaces the step `torch` by a command of your own, run in the root with $PYTHON: for machines that do not
# reach $TORCH_INDEX. LIMIT_MB bounds the image (1500). What lies in FOLDER from an earlier run is used again.
set -euo pipefail
folder=$(mkdir -p "${1:?FOLDER}" && cd "$1" && pwd)
repository=$(cd "$(dirname "$0")/.." && pwd)
index=$(sed -n 's/^ARG TORCH_INDEX=//p' "$repository/Dockerfile")
suite=$(sed -n 's/^FROM debian:\([a-z]*\)-slim$/\1/p' "$repository/Dockerfile")
umask 022

inside() {  # ROOT COMMAND...: in the root, with none of this machine's variables but those of proxies and certificates
  local root=$1; shift
  env -i HOME=/root PATH=/opt/meta-ood/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    PYTHONPYCACHEPREFIX=/tmp/pycache MLFLOW_DISABLE_TELEMETRY=true TORCH_INDEX="$index" PYTHON=/opt/meta-ood/bin/python chroot "$root" "$@"
}

# 1. Debian, as in debian:bookworm-slim; twice, for both stages
for root in build image; do
  [ -e "$folder/$root/etc/debian_version" ] && continue
  [ -e "$folder/base.tar" ] || { debootstrap --variant=minbase "$suite" "$folder/base" && tar cf "$folder/base.tar" -C "$folder/base" .; }
  mkdir -p "$folder/$root" && tar xf "$folder/base.tar" -C "$folder/$root"
  cp /etc/resolv.conf "$folder/$root/etc/"
  # how this machine reaches registries is no part of the image: removed below
  for file in ${SITE_FILES:-}; do install -D "$file" "$folder/$root$file"; done
  # what the image debian:…-slim leaves out
  rm -rf "$folder/$root"/usr/share/{doc,man,info,locale}/* "$folder/$root"/var/cache/apt/archives/*.deb
done

# 2. the stage `build`; the context is what .dockerignore lets through: files that git knows, for the wheel
context=$folder/build/src
rm -rf "$context" && mkdir -p "$context"
(cd "$repository" && git ls-files CITATION.cff LICENSE MANIFEST.in README.md constraints.txt docker/steps.sh pyproject.toml setup.py src | tar cf - -T -) | tar xf - -C "$context"
[ -x "$folder/build/opt/meta-ood/bin/python" ] || inside "$folder/build" sh /src/docker/steps.sh build
inside "$folder/build" sh -ec "${TORCH_STEP:-sh /src/docker/steps.sh torch}"
inside "$folder/build" sh /src/docker/steps.sh package

# 3. the image
install -D "$repository/docker/steps.sh" "$folder/image/tmp/docker/docker/steps.sh"
[ -d "$folder/image/work" ] || inside "$folder/image" sh /tmp/docker/docker/steps.sh run
rm -rf "$folder/image/tmp/docker" "$folder/image/opt/meta-ood"
mkdir -p "$folder/image/opt" && cp -a "$folder/build/opt/meta-ood" "$folder/image/opt/meta-ood"
for file in ${SITE_FILES:-}; do rm -f "$folder/image$file"; done

# 4. what came out
size=$(($(du -sb "$folder/image" | cut -f1) / 1000000))
echo "image: $size MB (at most ${LIMIT_MB:=1500})"
inside "$folder/image" chroot --userspec=meta-ood / meta-ood --version
inside "$folder/image" chroot --userspec=meta-ood / sh -c 'cd /work && meta-ood doctor && time meta-ood detect --demo'
[ "$size" -le "$LIMIT_MB" ]
