"""`login`: what the pages of Prefect and MLflow ask for."""

from __future__ import annotations

from deployments.cli.options import DEFAULT_HOME, HomeOption
from deployments.cli.terminal import console


def login(home: HomeOption = DEFAULT_HOME) -> None:
    """Show what the pages of Prefect and MLflow ask for. The password is the state folder's, and yours alone."""
    from deployments.credentials import credentials_of
    from deployments.running import require_current, running_services
    from sdlora.core.errors import ConfigError

    if not home.is_dir():
        raise ConfigError(f"{home} does not exist. Correct --home, or make it: sdlora up --home {home}")
    credentials = credentials_of(home)
    if running := running_services(home):
        require_current(running["prefect"], credentials)
    console.print(credentials.instructions(), markup=False, soft_wrap=True)
