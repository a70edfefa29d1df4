#!/usr/bin/env bash
# Makes the base images that the Dockerfile names available. Where they cannot
# be pulled, they are built from Debian's packages and the installed Go, under
# the same tags:
#
#   debian:bookworm-slim    a minimal Debian 12
#   golang:1.26-bookworm    the same with a C compiler and Go
#
# With the argument debian, the first of them only.
#
# Where containers reach no package mirror, both also get what the Dockerfile
# would install: the libraries of the engines, and the demonstration data.
#
# DEBIAN_MIRROR chooses the mirror; the default is the one this machine uses,
# else debootstrap's.
# Needs root or sudo (debootstrap), docker, debootstrap and Go.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

suite=bookworm
debian=debian:$suite-slim
golang=golang:1.26-$suite

# What the images made here are labelled with; another word when they are to
# hold something else, so that those of before are made again.
contents=engines-libdeflate

have() { # IMAGE is here: an official one, or made here with these contents
  local label
  label=$(docker image inspect -f '{{with .Config.Labels}}{{index . "mochi.base"}}{{end}}' "$1" 2>/dev/null) || return 1
  [ -z "$label" ] || [ "$label" = "$contents" ]
}
pull() { timeout 300 docker pull -q "$1" >/dev/null 2>&1; }

images=("$debian" "$golang")
if [ "${1:-}" = debian ]; then images=("$debian"); fi

missing=0
for image in "${images[@]}"; do
  if have "$image"; then
    echo "images: $image is here"
  elif pull "$image"; then
    echo "images: $image pulled"
  else
    echo "images: $image cannot be pulled"
    missing=1
  fi
done
[ $missing = 1 ] || exit 0

for tool in debootstrap go; do
  PATH=$PATH:/usr/sbin command -v $tool >/dev/null || { echo "images: $tool is missing; bash tools/deps.sh images installs what is needed" >&2; exit 1; }
done
sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)

mirror=${DEBIAN_MIRROR:-}
if [ -z "$mirror" ]; then
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $suite" 'Component: main' 2>/dev/null | head -n 1 || true)
fi

root=$(mktemp -d)
chmod 755 "$root" # it becomes / of the images, whose user is not root
trap '"${sudo[@]}" rm -rf --one-file-system "$root"' EXIT
in_root() {
  "${sudo[@]}" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
    chroot "$root" "$@" </dev/null
}
install() {
  in_root apt-get -qq -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0 install -y --no-install-recommends "$@" >/dev/null
}
import() { # import IMAGE CHANGE…: the root becomes IMAGE
  local image=$1 changes=()
  shift
  for c in "$@"; do changes+=(--change "$c"); done
  "${sudo[@]}" tar -C "$root" --numeric-owner --one-file-system \
    --exclude='./var/cache/apt/archives/*.deb' --exclude='./var/lib/apt/lists/*_*' --exclude='./proc/*' --exclude='./sys/*' -c . |
    docker import "${changes[@]}" --change "LABEL mochi.base=$contents" - "$image" >/dev/null
  echo "images: $image built from Debian packages"
}

echo "images: bootstrapping Debian $suite (about a minute)"
"${sudo[@]}" /usr/sbin/debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" ${mirror:+"$mirror"} >"$root.log" 2>&1 ||
  { tail -n 20 "$root.log" >&2; rm -f "$root.log"; exit 1; }
rm -f "$root.log"

if ! have "$debian"; then
  import "$debian" 'CMD ["bash"]'
  if ! timeout 60 docker run --rm "$debian" apt-get -qq -o Acquire::Retries=0 -o APT::Update::Error-Mode=any update >/dev/null 2>&1; then
    echo "images: containers have no package mirror; adding the engines' libraries and dataset-fashion-mnist to $debian"
    install libdnnl2 libjpeg62-turbo libdeflate0 dataset-fashion-mnist
    import "$debian" 'CMD ["bash"]'
  fi
fi

if [ "${1:-}" != debian ] && ! have "$golang"; then
  install gcc libc6-dev libdnnl-dev libjpeg62-turbo-dev libdeflate-dev
  "${sudo[@]}" mkdir -p "$root/usr/local/go" "$root/go"
  "${sudo[@]}" cp -a "$(go env GOROOT)/." "$root/usr/local/go/"
  # Modules are fetched during the build: trust whom this machine trusts. The
  # build stage is not part of the finished image.
  certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
  "${sudo[@]}" cp -L "$certificates" "$root/etc/ssl/certs/ca-certificates.crt"
  import "$golang" 'ENV GOPATH=/go GOTOOLCHAIN=local PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    'WORKDIR /go' 'CMD ["bash"]'
fi
