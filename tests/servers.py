"""A real PostgreSQL server and an S3 server for tests, on loopback, gone with the test session."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_SECONDS, wait_until

PASSWORD = "not-to-be-shown"
BUCKET = "sdlora-tests"
_names = itertools.count()


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def postgres_binary(name: str) -> str | None:
    """The program on PATH, or where Debian keeps it."""
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    return str(newest[-1]) if newest else shutil.which(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a server, without a database. It runs under another account than root, as PostgreSQL demands."""
    initdb, server = postgres_binary("initdb"), postgres_binary("postgres")
    if not initdb or not server:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="sdlora-postgres-"))
    account = {}
    if os.getuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
        account = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        shutil.chown(folder, user)
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o644)
    process = None
    try:
        options = ["--username=sdlora", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--encoding=UTF8"]
        command = [initdb, "--pgdata", str(folder / "data"), "--no-sync", "--locale=C", *options]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, **account)
        assert done.returncode == 0, done.stderr
        for _ in range(5):  # a free port may be taken before the server binds it
            port = free_port()
            options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
            with (folder / "log").open("w") as log:
                command = [server, "-D", str(folder / "data"), *options]
                process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **account)
            if _is_ready(port, process, folder / "log"):
                break
        assert process is not None and process.poll() is None, (folder / "log").read_text()
        yield f"postgresql://sdlora:{PASSWORD}@127.0.0.1:{port}"
    finally:
        if process:
            process.send_signal(signal.SIGQUIT)
            process.wait(timeout=PATIENCE_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated(postgres: str) -> str:
    """The name of a database at the newest schema, for `new_database` to copy."""
    from sdlora.store.database import open_database

    _statement(postgres, 'CREATE DATABASE "empty"')
    open_database(f"{postgres}/empty").close()
    return "empty"


def new_database(postgres: str, template: str = "template1") -> str:
    """The address of a new database."""
    name = f"test_{next(_names)}"
    _statement(postgres, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return f"{postgres}/{name}"


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of an empty bucket; the variables of the client point there."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line per request tells nothing
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}"
    server.stop()


def new_folder(s3: str) -> str:
    return f"{s3}/{next(_names)}"


def _statement(postgres: str, sql: str) -> None:
    import psycopg2

    connection = psycopg2.connect(f"{postgres}/postgres")
    connection.autocommit = True  # CREATE DATABASE knows no transaction
    with contextlib.closing(connection):
        connection.cursor().execute(sql)


def _is_ready(port: int, process: subprocess.Popen, log: Path) -> bool:
    """Wait until the server answers; False if it ended."""

    def answers() -> bool:
        with contextlib.closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0 and "ready to accept connections" in log.read_text()

    wait_until(lambda: process.poll() is not None or answers(), "the start of PostgreSQL")
    return process.poll() is None
