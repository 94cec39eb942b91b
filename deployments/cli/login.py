"""Command `login`: user and password for the pages of Prefect and MLflow."""

from __future__ import annotations

from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from deployments.cli.terminal import console, plain


def login(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show user and password for the pages of Prefect and MLflow. Each state folder has its own password.

    With --json also the token of the receiver, see docs/triggers.md.
    """
    from deployments.servers.credentials import credentials_of
    from deployments.servers.running import require_current, running_services
    from sdlora.core.errors import ConfigError

    if not home.is_dir():
        raise ConfigError(f"{home} does not exist. Correct --home, or create the folder: sdlora up --home {home}")
    credentials = credentials_of(home)
    if running := running_services(home):
        require_current(running["prefect"], credentials)
    if as_json:
        print_json(
            {"user": credentials.user, "password": credentials.password, "receiver_token": credentials.receiver_token}
        )
    else:
        console.print(plain(credentials.instructions()), soft_wrap=True)
