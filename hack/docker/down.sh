#!/usr/bin/env bash
# Stops the daemon that hack/docker/up.sh started; images stay.
set -euo pipefail
pidfile="${THINKIMG_DOCKER_STATE:-/var/lib/thinkimg-docker}/docker.pid"
[ -f "$pidfile" ] || exit 0
pid="$(cat "$pidfile")"
kill "$pid" 2>/dev/null || exit 0
for _ in $(seq 60); do
    kill -0 "$pid" 2>/dev/null || exit 0
    sleep 0.5
done
echo "docker: the daemon $pid does not stop" >&2
exit 1
