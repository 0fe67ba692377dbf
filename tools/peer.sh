#!/bin/sh
# Makes an environment with the real Celery beside the sources, for tests that compare with it.
# Prints the path of its interpreter. PYTHON chooses the interpreter it is made with.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
venv=$root/.venv-peer
python=${PYTHON:-python3}
[ -x "$root/.venv/bin/python" ] && python=${PYTHON:-$root/.venv/bin/python}
if ! "$venv/bin/python" -c 'import celery, pydantic, pytest, redis, yaml, msgpack, sqlalchemy, psycopg2, memcache, cryptography' 2>/dev/null; then
    "$python" -m venv "$venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        'celery[msgpack,pydantic,redis,yaml]==5.6.*' pytest SQLAlchemy psycopg2-binary python-memcached cryptography >&2
fi
echo "$venv/bin/python"
