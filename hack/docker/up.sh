#!/usr/bin/env bash
# A docker daemon and a Python base image on a machine that has neither and can reach no image registry: Debian's docker.io,
# debootstrap. Prints the variables that hack/docker/build.sh and the tests take. Does nothing where docker answers already.
#   eval "$(hack/docker/up.sh)"
# Needs root. hack/docker/down.sh stops the daemon again.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
state="${THINKIMG_DOCKER_STATE:-/var/lib/thinkimg-docker}"
base=thinkimg.local/base:bookworm

say() { echo "docker: $*" >&2; }

install() {
    command -v "$1" >/dev/null 2>&1 && return
    say "installing $2"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$2" >&2
}

client=docker
if ! docker info >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] || { say "no daemon answers, and only root may start one: start docker, or run this as root"; exit 1; }
    install dockerd docker.io
    # Another client may come first on PATH: Debian's belongs to its daemon.
    client=/usr/bin/docker
    export DOCKER_HOST="unix://$state/docker.sock"
    if ! "$client" info >/dev/null 2>&1; then
        mkdir -p "$state"
        runtime=()
        # A container without CAP_SYS_RESOURCE cannot give it to its own containers.
        if ! grep -Eq '^CapBnd:.*[13579bdf].{6}$' /proc/self/status; then
            runtime=(--add-runtime "unprivileged=$here/runc-without-sys-resource" --default-runtime unprivileged)
        fi
        nohup dockerd --oom-score-adjust 0 --storage-driver overlay2 --host "$DOCKER_HOST" --data-root "$state/data" \
            --exec-root "$state/exec" --pidfile "$state/docker.pid" "${runtime[@]}" >"$state/dockerd.log" 2>&1 &
        for _ in $(seq 60); do
            "$client" info >/dev/null 2>&1 && break
            sleep 0.5
        done
        "$client" info >/dev/null 2>&1 || { say "the daemon does not start:"; tail -5 "$state/dockerd.log" >&2; exit 1; }
    fi
    echo "export DOCKER_HOST=$DOCKER_HOST DOCKER=$client"
fi

default="$(sed -n 's/^ARG BASE_IMAGE=//p' "$here/../../Dockerfile.runtime")"
if ! "$client" image inspect "$default" >/dev/null 2>&1 && ! timeout 60 "$client" pull --quiet "$default" >/dev/null 2>&1; then
    if ! "$client" image inspect "$base" >/dev/null 2>&1; then
        say "the base image cannot be pulled; making one from Debian's packages"
        install debootstrap debootstrap
        root="$(mktemp -d)"
        trap 'rm -rf "$root"' EXIT
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root" >&2
        # Registries behind a proxy with an authority of its own: what the host trusts, builds trust.
        cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
        printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$root/etc/pip.conf"
        rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
        tar -C "$root" -c . | "$client" import --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' - "$base" >&2
    fi
    echo "export BASE_IMAGE=$base"
fi
