"""Command `notify`: who hears of what happens while nobody looks. Nobody does until somebody is added."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli.commands import as_command
from deployments.cli.json_output import print_json
from deployments.cli.options import DEFAULT_HOME, HomeOption, JsonOption
from deployments.cli.terminal import console, error_console, hint, plain

if TYPE_CHECKING:
    from tasks.notify.recipients import Recipient

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the recipient, such as team.")]

notify_app = typer.Typer(rich_markup_mode="rich", no_args_is_help=True)


def notify(context: typer.Context, home: HomeOption = DEFAULT_HOME) -> None:
    """Send messages to Slack, Teams, Discord, a webhook or by e-mail: promotions, failures, waiting candidates."""
    context.default_map = {name: {"home": str(home)} for name in COMMANDS}


def add(
    name: NameArgument,
    kind: Annotated[str, typer.Option("--kind", help="slack, teams, discord, webhook or email.")],
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            help="Kinds, with commas: waiting, promotion, refusal, failure, silence, given-up. Default: all.",
        ),
    ] = None,
    styles: Annotated[
        list[str] | None, typer.Option("--style", help="Only messages about this style; repeatable. Default: all.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Add a recipient, or replace the one of this name. The address is read from standard input: it is a secret.

    Example: [bold]sdlora notify add team --kind slack --on promotion,failure < address.txt[/]
    """
    from sdlora.core.errors import ConfigError
    from tasks.notify.addresses import require_address
    from tasks.notify.recipients import Recipient

    home = home.resolve()
    try:
        recipient = Recipient.model_validate(
            {"name": name, "kind": kind, "host": "", "on": _words(on), "styles": tuple(styles or ())}
        )
    except ValueError as error:
        raise ConfigError(_problem(error)) from None
    text = _read_secret("Address (it is not shown): ")
    require_address(recipient.kind, text)  # before a server starts
    with _prefect(home, f"Storing the address of {name} ..."):
        from tasks.notify.addresses import parse_address
        from tasks.notify.recipients import load_recipients, save_recipient

        address = parse_address(recipient.kind, text)
        _forget_other_kind(load_recipients(home), recipient)
        address.block.save(recipient.block_name, overwrite=True, _sync=True)  # type: ignore[call-arg]  # of Prefect
        update = {"host": address.host, "to": address.to, "sender": address.sender}
        save_recipient(home, recipient.model_copy(update=update))
    about = f"{_kinds(recipient)} about {_styles(recipient)}"
    console.print(plain(f"{name} hears of {about}, by {kind} at {address.host}."))
    hint(f"Try it: sdlora notify test {name}")


def try_(name: NameArgument, home: HomeOption = DEFAULT_HOME) -> None:
    """Send a test message to a recipient; the exit status is 1 if the message was not accepted.

    Example: [bold]sdlora notify test team[/]
    """
    from tasks.notify.recipients import find_recipient

    home = home.resolve()
    recipient = find_recipient(home, name)
    with _prefect(home, f"Sending a message to {name} ..."):
        from sdlora.release.messages import trial_message
        from tasks.notify.sending import SendingError, load_block, send

        try:
            send(recipient, trial_message(name), load_block(recipient))
        except SendingError as error:
            where = f"{recipient.kind} at {recipient.host}"
            raise SendingError(f"The message to {name} ({where}) failed: {error}") from None
    console.print(plain(f"{recipient.host} accepted a message to {name}."))


def list_(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """List the recipients and what they hear of. Addresses are not shown."""
    from tasks.notify.recipients import heartbeat_host, load_recipients

    recipients, heartbeat_at = load_recipients(home), heartbeat_host(home)
    if as_json:
        print_json({"recipients": recipients, "heartbeat_host": heartbeat_at})
        return
    if not recipients:
        console.print("Nobody hears of anything. Add somebody: sdlora notify add NAME --kind slack")
    else:
        from rich.table import Table

        table = Table("name", "kind", "host", "hears of", "styles", box=None)
        for one in recipients:
            table.add_row(*map(plain, (one.name, one.kind, one.host, _kinds(one), _styles(one))))
        console.print(table)
    console.print(plain(f"Heartbeat: {heartbeat_at or 'none'}"))


def remove(name: NameArgument, home: HomeOption = DEFAULT_HOME) -> None:
    """Remove a recipient and its address."""
    from tasks.notify.recipients import find_recipient

    home = home.resolve()
    recipient = find_recipient(home, name)
    with _prefect(home, f"Removing the address of {name} ..."):
        from tasks.notify.recipients import forget_recipient

        _delete_block(recipient)
        forget_recipient(home, name)
    console.print(plain(f"{name} hears of nothing any more."))


def heartbeat(
    home: HomeOption = DEFAULT_HOME,
    off: Annotated[bool, typer.Option("--off", help="Forget the address: no heartbeat any more.")] = False,
) -> None:
    """Let `sdlora up` call an address every minute while all is well; the address is read from standard input.

    A monitoring service that misses the calls can then say that the machine or sdlora is dead.
    """
    home = home.resolve()
    url = "" if off else _read_secret("Address of the heartbeat (it is not shown): ")
    with _prefect(home, "Removing the address ..." if off else "Storing the address ..."):
        from tasks.notify.heartbeat import forget_heartbeat, save_heartbeat

        if off:
            forget_heartbeat(home)
            console.print("No heartbeat any more.")
        else:
            host = save_heartbeat(home, url)
            console.print(plain(f"sdlora up calls {host} every minute while all is well."))


def _read_secret(prompt: str) -> str:
    """Read one line that is shown nowhere; a command line could be read by every user of the machine."""
    if sys.stdin.isatty():
        from getpass import getpass

        return getpass(prompt).strip()
    return sys.stdin.readline().strip()


@contextmanager
def _prefect(home: Path, doing: str) -> Iterator[None]:
    """Use the Prefect server of the state folder, and show meanwhile what is being done."""
    from deployments.servers.prefect_address import reachable_prefect
    from sdlora.core.files import make_private_folder

    with error_console.status(doing), reachable_prefect(make_private_folder(home), "notify"):
        yield


def _forget_other_kind(recipients: Sequence[Recipient], new: Recipient) -> None:
    """Delete the address of a recipient of this name but another kind, which another block keeps."""
    for recipient in recipients:
        if recipient.name == new.name and recipient.kind != new.kind:
            _delete_block(recipient)


def _delete_block(recipient: Recipient) -> None:
    from tasks.notify.addresses import block_class

    with suppress(ValueError):  # another server keeps it, or it was deleted on Prefect's page
        block_class(recipient.kind).delete(recipient.block_name, _sync=True)  # type: ignore[call-arg]


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _problem(error: ValueError) -> str:
    from sdlora.core.config_base import first_problem

    return f"notify add: {first_problem(error)}"


def _kinds(recipient: Recipient) -> str:
    return ", ".join(recipient.on) or "everything"


def _styles(recipient: Recipient) -> str:
    return ", ".join(recipient.styles) or "all styles"


COMMANDS: dict[str, Callable[..., None]] = {
    "add": add,
    "test": try_,
    "list": list_,
    "remove": remove,
    "heartbeat": heartbeat,
}
notify_app.callback()(notify)
for _name, _command in COMMANDS.items():
    notify_app.command(_name)(as_command(_command))
