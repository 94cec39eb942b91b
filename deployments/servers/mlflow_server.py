"""Command and environment of the MLflow server that `sdlora up` starts, on the state folder's records."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from deployments.servers.credentials import Credentials
from tasks.private import private_folder

# `authorization_function` admits only the owner, so accounts created in MLflow get no permission.
ACCESS = """\
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///{accounts}
authorization_function = deployments.servers.mlflow_access:only_the_owner
"""


@dataclass(frozen=True)
class MlflowServer:
    """MLflow server of one state folder."""

    home: Path
    port: int
    credentials: Credentials

    @property
    def folder(self) -> Path:
        return self.home / "mlflow"

    def command(self) -> list[str]:
        # Stored addresses of artifacts are relative (`tasks/tracking/artifacts.py`), and the server resolves them
        # against the destination. `sdlora run` resolves the same addresses without a server.
        return [
            *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"),
            *("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"),
            *("--serve-artifacts", "--artifacts-destination", (self.folder / "artifacts").as_uri()),
            *("--default-artifact-root", "mlflow-artifacts:/"),
            *("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"),
            # The socket of `Service` on standard input.
            *("--uvicorn-opts", "--fd 0"),
            # Requests for other host names are refused, which stops DNS rebinding. localhost is one of them: browsers
            # try ::1 first, where another user may listen.
            *("--allowed-hosts", f"127.0.0.1:{self.port}"),
        ]

    def environment(self) -> dict[str, str]:
        """Write the settings file of MLflow's accounts; return variables that name the file and the owner."""
        settings = private_folder(self.folder) / "access.ini"
        accounts = str(self.folder / "accounts.db").replace(
            "%", "%%"
        )  # a single % starts an interpolation in INI files
        settings.write_text(ACCESS.format(accounts=accounts))
        return {
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_AUTH_ADMIN_USERNAME": self.credentials.user,
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.credentials.password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.credentials.mlflow_secret_key,
            # A user's environment could switch these protections off: checks of host names, origins and frames, the
            # address that the server program listens on. MLflow takes an empty text for no options.
            "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{self.port}",
            "MLFLOW_SERVER_X_FRAME_OPTIONS": "SAMEORIGIN",
            "MLFLOW_SERVER_ENABLE_GRAPHQL_AUTH": "true",
            "MLFLOW_GUNICORN_OPTS": "",
            "MLFLOW_UVICORN_OPTS": "",
            # By default MLflow starts seven job runners of 250 MB each.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
