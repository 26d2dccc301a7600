#!/usr/bin/env bash
# A Chromium for the test of the page. Without one that test is skipped, or fails where CI=true.
set -euo pipefail

for name in "${THINKIMG_CHROMIUM:-}" chromium chromium-browser google-chrome; do
    if [ -n "$name" ] && command -v "$name" >/dev/null; then
        exit 0
    fi
done

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    if apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; then
        exit 0
    fi
fi
echo "There is no Chromium, which the test of the page needs: install it (on Debian: apt-get install chromium)," >&2
echo "or name one: export THINKIMG_CHROMIUM=/path/to/chromium" >&2
