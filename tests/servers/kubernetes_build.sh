#!/usr/bin/env bash
# Build kube-apiserver, kube-controller-manager and kube-scheduler 1.20.2 from Debian 12's source package, once, into the cache that
# tests/servers/kubernetes.py looks in. apt only: no Go proxy, no containers; the machine's own apt sources stay as they are.
# 6 to 10 minutes on two cores, 2.6 GB of scratch space (TMPDIR), 250 MB kept.
set -euo pipefail

bin=${XDG_CACHE_HOME:-$HOME/.cache}/vppd/kubernetes-1.20.2/bin
programs=(kube-apiserver kube-controller-manager kube-scheduler)
built() { local name; for name in "${programs[@]}"; do [ -x "$bin/$name" ] || return 1; done; }

if built && [ "${1:-}" != --again ]; then
  echo "there already: $bin"
  exit 0
fi
say() { printf '==> %s\n' "$*"; }
fail() { printf 'kubernetes_build.sh: %s\n' "$*" >&2; exit 1; }
command -v apt-get >/dev/null || fail "there is no apt-get here: the source comes from Debian 12"
[ "$(id -u)" -eq 0 ] && root=() || root=(sudo)

packages=(golang-go rsync make git etcd-server dpkg-dev golang-github-modern-go-reflect2-dev)
missing=()
for name in "${packages[@]}"; do dpkg -s "$name" >/dev/null 2>&1 || missing+=("$name"); done
if [ "${#missing[@]}" -gt 0 ]; then
  say "installing ${missing[*]}"
  # etcd would start by itself otherwise
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
    "${root[@]}" chmod 755 "$policy"
    trap '"${root[@]}" rm -f "$policy"' EXIT
  fi
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
  [ -z "${policy:-}" ] || { "${root[@]}" rm -f "$policy"; trap - EXIT; }
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/vppd-kubernetes-build.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

# The source index in an apt state of its own, from the archive that the binary packages come from.
mkdir -p apt/lists/partial apt/cache/archives/partial
archive=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' | awk '$2 == "bookworm" { print $1; exit }')
[ -n "$archive" ] || fail "no Debian 12 (bookworm) archive among the apt sources of this machine"
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive bookworm main" > apt/sources.list
cat > apt/apt.conf <<CONF
Dir::Etc::sourcelist "$work/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$work/apt/lists";
Dir::Cache "$work/apt/cache";
APT::Sandbox::User "";
CONF
say "fetching the source package"
APT_CONFIG=$work/apt/apt.conf apt-get update -qq
APT_CONFIG=$work/apt/apt.conf apt-get source --download-only -qq kubernetes=1.20.5+really1.20.2-1.1+deb12u1 ||
  APT_CONFIG=$work/apt/apt.conf apt-get source --download-only -qq kubernetes
tar xzf kubernetes_1.20.5+really1.20.2.orig.tar.gz
cd kubernetes-1.20.2

# The vendored reflect2 1.0.1 makes the server panic when it was built with Go 1.18 or later; Debian's own is 1.0.2.
reflect2=vendor/github.com/modern-go/reflect2
rm -f "$reflect2"/*.go "$reflect2"/*.s
cp /usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$reflect2/"
rm -f "$reflect2"/*_test.go

say "building ${programs[*]}"
mkdir -p .go/src/k8s.io "$work/home"
ln -sfn ../../.. .go/src/k8s.io/kubernetes
export HOME=$work/home GOPATH=$PWD/.go GOCACHE=$work/gocache CGO_ENABLED=0 GOPROXY=off GOSUMDB=off
export KUBE_GIT_VERSION=v1.20.2 KUBE_GIT_COMMIT=debian KUBE_GIT_TREE_STATE=clean KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20
make WHAT="$(printf 'cmd/%s ' "${programs[@]}")" >"$work/make.log" 2>&1 || { tail -40 "$work/make.log" >&2; fail "the build failed"; }

mkdir -p "$bin"
for name in "${programs[@]}"; do
  install -m 755 "_output/local/bin/linux/$(dpkg --print-architecture)/$name" "$bin/.$name.new"
  mv "$bin/.$name.new" "$bin/$name"
done
built || fail "not all programs were built"
say "built: $bin"
