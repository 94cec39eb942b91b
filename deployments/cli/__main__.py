"""`python -m deployments.cli`: the command `sdlora` from a checkout that is not installed."""

from deployments.cli import main

main()
