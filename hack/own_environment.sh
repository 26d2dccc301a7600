# Sourced from the repository's root: own_environment NAME REQUIREMENT... makes ~/.cache/thinkimg/NAME with these
# requirements, again only when they change, and prints the path of its Python.
python="${PYTHON:-python3}"
. hack/find_uv.sh

own_environment() {
    local folder="$HOME/.cache/thinkimg/$1"
    local stamp="${*:2}"
    if [ "$(cat "$folder/stamp" 2>/dev/null)" != "$stamp" ]; then
        "$uv" venv --quiet --clear ${PYTHON:+--python "$PYTHON"} "$folder" >&2
        "$uv" pip install --quiet --python "$folder/bin/python" "${@:2}" >&2
        echo "$stamp" >"$folder/stamp"
    fi
    echo "$folder/bin/python"
}
