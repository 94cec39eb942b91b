"""How `sdlora up` starts MLflow: on the records of the state folder, for its owner alone."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from deployments.credentials import Credentials
from tasks.private import private_folder

# `authorization_function` decides who comes in. Nobody but the owner does, so accounts made in MLflow get nothing.
ACCESS = """\
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///{accounts}
authorization_function = deployments.mlflow_access:only_the_owner
"""


@dataclass(frozen=True)
class MlflowServer:
    """The server's command and environment."""

    home: Path
    port: int
    credentials: Credentials

    @property
    def folder(self) -> Path:
        return self.home / "mlflow"

    def command(self) -> list[str]:
        # Clients on this machine write artifacts themselves: with the server's proxy, their addresses would make
        # sense only while it runs, and `sdlora run` works on the same records without it.
        return [
            *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"),
            *("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}", "--no-serve-artifacts"),
            *("--default-artifact-root", (self.folder / "artifacts").as_uri()),
            *("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"),
            # A page asked for under another name is refused, which is what stops DNS rebinding. Browsers look for
            # localhost at ::1 first, where another user may listen.
            *("--allowed-hosts", f"127.0.0.1:{self.port}"),
        ]

    def environment(self) -> dict[str, str]:
        """Write the settings of MLflow's accounts; returns the variables that name them, and who the owner is."""
        settings = private_folder(self.folder) / "access.ini"
        accounts = str(self.folder / "accounts.db").replace("%", "%%")  # in such a file % means something
        settings.write_text(ACCESS.format(accounts=accounts))
        return {
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_AUTH_ADMIN_USERNAME": self.credentials.user,
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.credentials.password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.credentials.mlflow_secret_key,
            # What a user's environment could open: other hosts' names, pages and frames, a program that listens
            # elsewhere or leaves out the checks. MLflow takes an empty text for none.
            "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{self.port}",
            "MLFLOW_SERVER_X_FRAME_OPTIONS": "SAMEORIGIN",
            "MLFLOW_SERVER_ENABLE_GRAPHQL_AUTH": "true",
            "MLFLOW_GUNICORN_OPTS": "",
            "MLFLOW_UVICORN_OPTS": "",
            # By default MLflow starts seven job runners of 250 MB each.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
