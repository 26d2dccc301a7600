# Sourced from the repository's root: sets `uv`, installing it into .cache/uv where there is none. Wants `python`.

# uv reads no pip configuration: a certificate that pip was given is passed on, unless uv has one of its own.
certificate="${SSL_CERT_FILE:-${PIP_CERT:-$("$python" -m pip config get global.cert 2>/dev/null || true)}}"
if [ -n "$certificate" ]; then
    export SSL_CERT_FILE="$certificate"
fi

uv=uv
if ! uv --version >/dev/null 2>&1; then
    uv=.cache/uv/bin/uv
    if ! "$uv" --version >/dev/null 2>&1; then
        echo "setup: there is no uv; it is installed into .cache/uv"
        rm -rf .cache/uv
        # Some distributions split venv from Python; pip alone is enough then.
        if "$python" -m venv .cache/uv >/dev/null 2>&1; then
            .cache/uv/bin/python -m pip install --quiet "uv>=0.9"
        else
            rm -rf .cache/uv
            if ! "$python" -m pip install --quiet --target .cache/uv "uv>=0.9"; then
                echo "setup: neither venv nor pip works with $python; on Debian: apt-get install python3-venv" >&2
                exit 1
            fi
        fi
    fi
fi
