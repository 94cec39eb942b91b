"""Environment variables for Prefect and MLflow: state in one folder, loopback only, no telemetry.

They are set before either library is imported, because both read them once.
"""

from __future__ import annotations

import os
from pathlib import Path

from sdlora.processes.memory import thresholds_of_children
from sdlora.processes.slots import DEVICES, slots_of

PREFECT_PORT, MLFLOW_PORT = 4200, 5000
POOL = "local"
PREFECT_FILE = Path(__file__).parent / "prefect.yaml"
PROJECT = Path(__file__).parent.parent
"""The folder that holds flows/ and tasks/, in a checkout and in an installation."""
DEMO_CONFIG = Path(__file__).parent / "configs" / "demo.yaml"
"""The style of `sdlora demo`."""
_LOOPBACK = ("127.0.0.1", "localhost")


def prefect_url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def without_proxy() -> dict[str, str]:
    """Return variables that send requests to this machine past any proxy, which could read the password."""
    named = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    hosts = dict.fromkeys(host.strip() for host in (*named.split(","), *_LOOPBACK) if host.strip())
    # Some clients take a star for a host name if the list has other entries.
    exceptions = "*" if "*" in hosts else ",".join(hosts)
    return {"no_proxy": exceptions, "NO_PROXY": exceptions}  # clients differ in which of the two they read


def environment(home: Path) -> dict[str, str]:
    """Return variables for every process that works on the state folder `home`."""
    home = home.resolve()
    return {
        **without_proxy(),
        **thresholds_of_children(),
        "SDLORA_HOME": str(home),
        "DO_NOT_TRACK": "true",
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        # Results are references of a few lines. JSON is readable, and loading it runs no code.
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        # A run's page shows the tasks' own messages, without "Finished in state Completed()" of each; errors stay.
        "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Waits of 2 and 4 s. By default a client waits four minutes for a missing server and ignores Ctrl-C. The curves
        # are sent again with the next points anyway.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "GIT_PYTHON_REFRESH": "quiet",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
        **_without_gpus(),
    }


def history_limits(home: Path) -> dict[str, str]:
    """Return variables of a Prefect server that deletes old runs with their logs and pages, see `RetentionConfig`."""
    from sdlora.retention.config import load_retention

    seconds = load_retention(home).prefect_days * 86_400
    return {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(seconds),
    }


def _without_gpus() -> dict[str, str]:
    """Return variables that hide the GPUs from PyTorch if SDLORA_DEVICES names only the processor."""
    return {"CUDA_VISIBLE_DEVICES": ""} if "cpu" in slots_of(os.environ.get(DEVICES)) else {}


def quiet_terminal() -> dict[str, str]:
    """Return variables that leave the terminal to the progress bars; logs go to a file and to the run's page."""
    return {
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL": "CRITICAL",
        "PREFECT_CLI_PROMPT": "false",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
    }
