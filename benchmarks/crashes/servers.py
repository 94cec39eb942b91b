"""Servers that a chain's runs use, each behind a port that can be closed, a disk that can be filled, a clock to set."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import yaml

from benchmarks.crashes.marks import Marks
from benchmarks.crashes.setting import STYLE, Setting, clean_environment
from deployments.servers.services import answers, free_port
from tests.false_clock import FalseClock
from tests.outages import Forwarder

DISK_MEGABYTES = 100


@contextlib.contextmanager
def setting_for(
    needs: Collection[str], folder: Path, images: Path, base: Path, postgres: str | None
) -> Iterator[Setting]:
    """Make the state folder of a chain, and the servers, the disk and the clock that its fault needs."""
    with contextlib.ExitStack() as stack:
        config = folder / "shapes.yaml"
        (folder / "disk").mkdir(parents=True)
        style = STYLE | {"base_model": {"source": str(base)}}
        style["data"] = STYLE["data"] | {"sources": [str(images)]}
        config.write_text(yaml.safe_dump(style))
        setting = Setting(folder, config, {"OMP_NUM_THREADS": "1"}, Marks(folder))
        if "small disk" in needs:
            size = f"size={DISK_MEGABYTES}m"
            subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(setting.disk)], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", str(setting.disk)], check=True)
        if "mlflow" in needs:
            _start_mlflow(setting, stack)
        if "prefect" in needs:
            _start_prefect(setting, stack)
        if "postgres" in needs:
            assert postgres
            _use_postgres(setting, postgres, folder.name)
        if "clock" in needs:
            setting.clock = FalseClock(setting.folder)
            setting.variables |= setting.clock.variables
        yield setting


def _start_mlflow(setting: Setting, stack: contextlib.ExitStack) -> None:
    port = free_port()
    records = setting.folder / "mlflow"
    records.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{records / 'mlflow.db'}"]
    command += ["--artifacts-destination", (records / "artifacts").as_uri()]
    variables = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}

    def start() -> None:
        with (setting.folder / "mlflow.txt").open("ab") as log:
            setting.mlflow_server = subprocess.Popen(
                command, env=clean_environment() | variables, stdout=log, stderr=log, process_group=0
            )
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert setting.mlflow_server.poll() is None, (setting.folder / "mlflow.txt").read_text()
            time.sleep(0.2)

    def stop() -> None:
        assert setting.mlflow_server
        with contextlib.suppress(ProcessLookupError):
            os.killpg(setting.mlflow_server.pid, signal.SIGKILL)
        setting.mlflow_server.wait()

    start()
    setting.restart_mlflow = lambda: (stop(), start())[1]
    stack.callback(stop)
    setting.mlflow = Forwarder(port)
    setting.variables["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{setting.mlflow.port}"


def _start_prefect(setting: Setting, stack: contextlib.ExitStack) -> None:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    variables = {"PREFECT_HOME": str(setting.folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with (setting.folder / "prefect.txt").open("ab") as log:
        server = subprocess.Popen(command, env=clean_environment() | variables, stdout=log, stderr=log)
    stack.callback(server.wait)
    stack.callback(server.kill)
    while not answers(f"http://127.0.0.1:{port}/api/health"):
        assert server.poll() is None, (setting.folder / "prefect.txt").read_text()
        time.sleep(0.2)
    setting.prefect = Forwarder(port)
    setting.variables["PREFECT_API_URL"] = f"http://127.0.0.1:{setting.prefect.port}/api"


def _use_postgres(setting: Setting, address: str, name: str) -> None:
    from sqlalchemy import create_engine, make_url

    engine = create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}"')
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    url = make_url(address).set(database=name)
    setting.postgres = Forwarder(url.port or 5432)
    through = url.set(host="127.0.0.1", port=setting.postgres.port)
    setting.variables["SDLORA_DATABASE_URL"] = through.render_as_string(hide_password=False)
