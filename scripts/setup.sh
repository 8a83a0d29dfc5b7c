#!/usr/bin/env bash
# Installs what this project's make targets need, and only what is missing. Running it again does nothing.
#
#   scripts/setup.sh GROUP...
#
#   python   .venv with the locked requirements and this project, editable
#   demo     mmdebstrap, which makes the demo image's base
#   phases   a Docker engine and a registry, which make phases builds and measures with
#   variants a Docker engine, which make variants runs images with
#   bench    what make bench measures: peers in .venv-bench, a Docker engine, a registry, skopeo
#   test     what tests judge images and files with: skopeo, umoci, podman, docker, a registry, a browser; elfutils, gcc, linkers;
#            .venv-oracles with NVIDIA's tools, and libraries of theirs to shrink
#   truthgraph .venv-truthgraph with the core of examples/truthgraph and what its tests need
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
PATH=$PATH:/usr/sbin:/sbin # where dockerd lies, and users do not look
missing=()

# need PACKAGE COMMAND...: the Debian package is missing where the command fails.
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

install_missing() {
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    local as_root=()
    if ! command -v apt-get >/dev/null; then
        echo "setup: this is no Debian; install these yourself, under the names they have here: ${missing[*]}" >&2
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "setup: neither root nor sudo; have an administrator run: apt-get install ${missing[*]}" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    echo "setup: installing Debian packages: ${missing[*]}" >&2
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

make_venv() {
    if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "setup: $("$PYTHON" --version) is too old, 3.11 or later is needed: name one by PYTHON=" >&2
        exit 1
    fi
    local stamp=.venv/setup-stamp wanted
    wanted=$("$PYTHON" --version && sha256sum requirements/dev.txt pyproject.toml)
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && .venv/bin/python -c 'import deadweight'; then
        return
    fi
    # A .venv of another Python, or of one that is gone, is made anew; any other is brought up to date.
    local version='import sys; print(sys.version_info[:2])'
    if [ ! -x .venv/bin/python ] || [ "$(.venv/bin/python -c "$version")" != "$("$PYTHON" -c "$version")" ]; then
        echo "setup: making .venv with $("$PYTHON" --version)" >&2
        "$PYTHON" -m venv --clear .venv
    fi
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
    printf '%s\n' "$wanted" >"$stamp"
}

make_oracles() {
    local lock=requirements/oracles.txt pip=(.venv-oracles/bin/python -m pip install -q --disable-pip-version-check)
    if [ -f .venv-oracles/setup-lock ] && cmp -s "$lock" .venv-oracles/setup-lock; then
        return
    fi
    "$PYTHON" -m venv --clear .venv-oracles
    "${pip[@]}" --require-hashes -r "$lock"
    # A library for arm64 as well, to shrink but not to run: its wheel's hash is in the same lock.
    sed -n '/^nvidia-curand-cu12==/,/# via/p' "$lock" >.venv-oracles/arm64.txt
    "${pip[@]}" --require-hashes -r .venv-oracles/arm64.txt --no-deps --target .venv-oracles/arm64 \
        --only-binary=:all: --platform manylinux_2_27_aarch64
    cp "$lock" .venv-oracles/setup-lock
}

make_truthgraph() {
    local service=examples/truthgraph stamp=.venv-truthgraph/setup-stamp wanted
    local pip=(.venv-truthgraph/bin/python -m pip install -q --disable-pip-version-check)
    wanted=$("$PYTHON" --version && sha256sum "$service/requirements/dev.txt" "$service/pyproject.toml")
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    "$PYTHON" -m venv --clear .venv-truthgraph
    "${pip[@]}" --require-hashes -r "$service/requirements/dev.txt"
    "${pip[@]}" --no-deps --no-build-isolation -e "$service"
    printf '%s\n' "$wanted" >"$stamp"
}

if [ $# -eq 0 ]; then
    echo "usage: scripts/setup.sh python|demo|test|phases|variants|bench|truthgraph..." >&2
    exit 2
fi

venv=no
oracles=no
bench=no
truthgraph=no
for group in "$@"; do
    case $group in
    python)
        venv=yes
        need python3 command -v "$PYTHON"
        need python3-venv "$PYTHON" -c 'import ensurepip, venv'
        ;;
    demo)
        need mmdebstrap command -v mmdebstrap
        need ca-certificates test -f /etc/ssl/certs/ca-certificates.crt
        need debian-archive-keyring test -f /usr/share/keyrings/debian-archive-keyring.gpg
        if [ "$(id -u)" -ne 0 ]; then
            need uidmap command -v newuidmap
        fi
        ;;
    test)
        need skopeo command -v skopeo
        need umoci command -v umoci
        need podman command -v podman
        need docker.io command -v dockerd
        need runc command -v runc
        need docker-registry command -v docker-registry
        need git command -v git
        need busybox-static command -v busybox
        need openssl command -v openssl
        need chromium command -v chromium
        need bubblewrap command -v bwrap
        need elfutils command -v eu-elflint
        need binutils command -v ld.gold
        need gcc command -v gcc
        need libc6-dev test -f /usr/include/stdio.h
        need lld command -v ld.lld
        need binutils-aarch64-linux-gnu command -v aarch64-linux-gnu-ld
        need python3-venv "$PYTHON" -c 'import ensurepip, venv'
        oracles=yes
        ;;
    phases)
        need docker.io command -v dockerd
        need runc command -v runc
        need docker-registry command -v docker-registry
        need skopeo command -v skopeo
        need git command -v git
        ;;
    variants)
        need docker.io command -v dockerd
        need runc command -v runc
        need skopeo command -v skopeo
        ;;
    bench)
        bench=yes
        need docker.io command -v dockerd
        need runc command -v runc
        need docker-registry command -v docker-registry
        need skopeo command -v skopeo
        need openssl command -v openssl
        need python3-venv "$PYTHON" -c 'import ensurepip, venv'
        ;;
    truthgraph)
        truthgraph=yes
        need python3-venv "$PYTHON" -c 'import ensurepip, venv'
        ;;
    *)
        echo "setup: no group is called $group: python, demo, test, phases, variants, bench and truthgraph are" >&2
        exit 2
        ;;
    esac
done

install_missing
if [ "$venv" = yes ]; then
    make_venv
fi
if [ "$oracles" = yes ]; then
    make_oracles
fi
if [ "$bench" = yes ] && ! .venv-bench/bin/python -c 'import sys' >/dev/null 2>&1; then
    "$PYTHON" -m venv --clear .venv-bench
    .venv-bench/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bench.txt
fi
if [ "$truthgraph" = yes ]; then
    make_truthgraph
fi
