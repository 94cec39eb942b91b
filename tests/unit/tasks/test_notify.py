"""Addresses are secrets, marks of chat programs are harmless, and a message that does not arrive stays for later."""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import threading
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from urllib.parse import urlsplit

import pytest
import requests

from sdlora.core.errors import ConfigError
from sdlora.release.messages import Message, MessageLink, trial_message
from tasks.notify import outbox
from tasks.notify.addresses import parse_address, require_address
from tasks.notify.outbox import deliver, put
from tasks.notify.recipients import FOLDER, Recipient, find_recipient, forget_recipient, load_recipients, save_recipient
from tasks.notify.sending import SendingError, body_text, redacted, secrets_of, send, without_secrets_in_logs
from tests.webhook import PARAMETER, SECRET, webhook

SLACK = "https://hooks.slack.com/services/T0000AAAA/B0000BBBB/cccccccccccccccccccccccc"
DISCORD = "https://discord.com/api/webhooks/123456789/abcdefghij-klm_nop"
TEAMS = (
    "https://prod-1.west.logic.azure.com:443/workflows/abcdefg123456/triggers/manual/paths/invoke"
    "?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=SIGNATURESECRET"
)
MAIL = "smtps://me%40example.org:passw0rd-secret@mail.example.org?to=a@example.org,b@example.org"
ADDRESSES = {"slack": SLACK, "discord": DISCORD, "teams": TEAMS, "email": MAIL}
EVIL = "<!channel> @everyone [click](http://evil.example) *bold*"


def recipient(kind="webhook", **fields) -> Recipient:
    return Recipient(name="team", kind=kind, host="127.0.0.1", **fields)


@pytest.mark.parametrize(("kind", "text"), ADDRESSES.items())
def test_an_address_of_each_kind_is_kept_in_a_block_that_shows_no_secret(kind, text):
    address = parse_address(kind, text)
    secrets = secrets_of(address.block)
    assert secrets
    shown = f"{address!r} {address.block!r} {address.block.model_dump_json()}"
    assert not [secret for secret in secrets if secret in shown]


def test_a_mail_address_names_sender_and_receivers():
    address = parse_address("email", MAIL)
    assert (address.host, address.to, address.sender) == (
        "mail.example.org",
        ("a@example.org", "b@example.org"),
        "me@example.org",
    )


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("slack", "https://evil.example/services/T0/B0/SECRETSECRET"),
        ("slack", "https://hooks.slack.com.evil.example/services/T0/B0/SECRETSECRET"),
        ("slack", "https://hooks.slack.com/services/SECRETSECRET"),
        ("discord", "https://discord.com.evil.example/api/webhooks/1/SECRETSECRET"),
        ("teams", "https://example.org/SECRETSECRET"),
        ("webhook", "SECRETSECRET"),
        ("webhook", "ftp://127.0.0.1/SECRETSECRET"),
        ("webhook", "file:///SECRETSECRET"),
        ("webhook", "http://93.184.216.34/SECRETSECRET"),
        ("webhook", "http://127.0.0.1:99999/SECRETSECRET"),
        ("webhook", "http://127.0.0.1/SECRETSECRET and more"),
        ("webhook", "http://127.0.0.1/SECRETSECRET\x1b"),
        ("webhook", "https://x/" + "SECRETSECRET" * 999),
        ("webhook", ""),
        ("email", "smtps://user:SECRETSECRET@mail.example.org"),
        ("email", "https://user:SECRETSECRET@mail.example.org?to=a@example.org"),
        ("email", "smtp+plain://a%40b.c:SECRETSECRET@93.184.216.34?to=a@example.org"),
    ],
)
def test_what_is_no_address_of_its_kind_is_refused_without_being_repeated(kind, text):
    with pytest.raises(ConfigError) as refusal:
        parse_address(kind, text)
    assert "SECRETSECRET" not in f"{refusal.value} {refusal.value.__cause__!r}"


def test_an_unencrypted_address_is_fine_inside_ones_own_network(monkeypatch):
    found = {"ntfy.lan": "192.168.1.5", "ntfy.example": "93.184.216.34"}
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: [(0, 0, 0, "", (found[host], 0))])
    require_address("webhook", "http://ntfy.lan/topic")
    with pytest.raises(ConfigError, match="read on its way"):
        require_address("webhook", "http://ntfy.example/topic")
    require_address("webhook", "https://ntfy.example/topic")


def test_a_message_arrives_with_subject_lines_and_links():
    message = Message(
        key="1",
        kind="promotion",
        style="icons",
        subject="icons: version 2",
        lines=("first", "second"),
        links=(MessageLink(label="Report", address="http://127.0.0.1:5000/#/x_y"),),
    )
    with webhook() as received:
        send(recipient(), message, parse_address("webhook", received.url).block)
    ((method, path, body),) = received.requests
    assert (method, path) == ("POST", f"/hook/{SECRET}?key={PARAMETER}")
    assert body["title"] == "icons: version 2"
    assert body["message"] == body["text"] == "first\nsecond\nReport: http://127.0.0.1:5000/#/x_y"


@pytest.mark.parametrize(
    ("kind", "powerful"),
    [("slack", ("<", ">")), ("discord", ("@everyone", "](")), ("teams", ("](", "<")), ("webhook", ("\x1b",))],
)
def test_foreign_text_mentions_nobody_and_hides_no_address(kind, powerful):
    message = Message(
        key="1",
        kind="failure",
        style="x",
        subject="s",
        lines=(EVIL,),
        links=(MessageLink(label="Run", address="http://127.0.0.1:4200/runs/a_b"),),
    )
    text = body_text(message, kind)
    assert not [mark for mark in powerful if mark in text.splitlines()[0]]
    assert text.endswith("Run: http://127.0.0.1:4200/runs/a_b")


def sent_by_apprise(kind, monkeypatch, *, status=200):
    posted = []

    def answer(session, request, **options):
        posted.append((request, options))
        response = requests.Response()
        response.status_code, response._content, response.request = status, b"ok", request
        return response

    monkeypatch.setattr(requests.Session, "send", answer)
    message = Message(key="1", kind="failure", style="x", subject="icons: a run failed", lines=(EVIL,))
    send(recipient(kind), message, parse_address(kind, ADDRESSES[kind]).block)
    return posted


@pytest.mark.parametrize("kind", ["slack", "discord", "teams"])
def test_chat_programs_get_harmless_text_and_follow_no_redirection(kind, monkeypatch):
    ((request, options),) = sent_by_apprise(kind, monkeypatch)
    assert urlsplit(request.url).hostname == parse_address(kind, ADDRESSES[kind]).host
    assert options["allow_redirects"] is False
    text = json.dumps(json.loads(request.body), ensure_ascii=False)
    assert "icons: a run failed" in text
    assert kind == "discord" or "<!channel" not in text
    assert kind == "slack" or "](http" not in text  # Slack knows no such links
    assert kind != "discord" or "@everyone" not in text


@pytest.mark.parametrize("kind", ["slack", "discord", "teams"])
def test_a_refused_message_is_an_error_without_the_address(kind, monkeypatch):
    with pytest.raises(SendingError) as failure:
        sent_by_apprise(kind, monkeypatch, status=404)
    secrets = secrets_of(parse_address(kind, ADDRESSES[kind]).block)
    assert not [secret for secret in secrets if secret in str(failure.value)]
    assert "404" in str(failure.value)


def test_a_redirection_is_not_followed():
    with webhook() as there, webhook() as here:
        here.status, here.headers = 307, {"Location": there.url}
        with pytest.raises(SendingError, match="status 307"):
            send(recipient(), trial_message("team"), parse_address("webhook", here.url).block)
        assert len(here.requests) == 1
        assert there.requests == []


def test_no_log_line_of_the_sending_libraries_has_the_address(caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.DEBUG)
    with webhook() as received:
        block = parse_address("webhook", received.url).block
        send(recipient(), trial_message("team"), block)
        with without_secrets_in_logs(secrets_of(block)):
            logging.getLogger("apprise").warning("Unparseable URL %s", received.url)
    assert "Unparseable URL [address]" in caplog.text
    assert SECRET not in caplog.text
    assert PARAMETER not in caplog.text


class MailServer(socketserver.StreamRequestHandler):
    """Just enough of SMTP for one message; `received` gets sender, receivers and text."""

    received: ClassVar[list[str]] = []

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            command = line.decode().strip()
            self.received.append(command)
            word = command.lower()
            self.wfile.write({"data": b"354 go\r\n", "quit": b"221 bye\r\n"}.get(word, b"250 fine\r\n"))
            if word == "data":
                while (text := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                    self.received.append(text)
                self.wfile.write(b"250 fine\r\n")
            if word == "quit":
                return


def test_a_mail_arrives_as_plain_text_for_all_its_receivers():
    MailServer.received.clear()
    with socketserver.TCPServer(("127.0.0.1", 0), MailServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"smtp+plain://127.0.0.1:{server.server_address[1]}?to=a@example.org,b@example.org&from=loop@example.org"
        address = parse_address("email", url)
        message = Message(key="1", kind="failure", style="x", subject="x: a run failed", lines=("<b>bold</b>",))
        send(recipient("email", to=address.to, sender=address.sender), message, address.block)
        server.shutdown()
    text = "\n".join(MailServer.received)
    assert "mail FROM:<loop@example.org>" in text
    assert "rcpt TO:<a@example.org>" in text
    assert "rcpt TO:<b@example.org>" in text
    assert "Subject: x: a run failed" in text
    assert "<b>bold</b>" in text
    assert "text/html" not in text


def test_parts_of_an_address_are_redacted_too():
    secrets = secrets_of(parse_address("webhook", f"http://127.0.0.1/hook/{SECRET}?key={PARAMETER}").block)
    text = redacted(f"/hook/{SECRET}: no; {PARAMETER}", secrets)
    assert SECRET not in text
    assert PARAMETER not in text


def test_recipients_choose_kinds_and_styles():
    promotion = Message(key="1", kind="promotion", style="icons", subject="s")
    assert recipient().wants(promotion)
    assert recipient(on=("promotion",), styles=("icons",)).wants(promotion)
    assert not recipient(on=("failure",)).wants(promotion)
    assert not recipient(styles=("other",)).wants(promotion)
    assert recipient(on=("failure",), styles=("other",)).wants(trial_message("team"))


def test_recipients_are_added_replaced_and_forgotten(tmp_path):
    assert load_recipients(tmp_path) == ()
    save_recipient(tmp_path, recipient())
    save_recipient(tmp_path, recipient(on=("failure",)))
    assert [one.on for one in load_recipients(tmp_path)] == [("failure",)]
    assert (tmp_path / FOLDER).stat().st_mode & 0o777 == 0o700
    forget_recipient(tmp_path, "team")
    with pytest.raises(ConfigError, match="No recipient 'team'; known: none"):
        find_recipient(tmp_path, "team")


def test_a_damaged_file_of_recipients_names_the_remedy(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "recipients.json").write_text('{"recipients": [{"name": 7}]}')
    with pytest.raises(ConfigError, match=r"is damaged.*Delete it"):
        load_recipients(tmp_path)


class Home:
    """State folder with one recipient at a local server."""

    def __init__(self, folder, monkeypatch, url) -> None:
        self.folder = folder
        save_recipient(folder, recipient())
        monkeypatch.setattr(outbox, "load_block", lambda one: parse_address("webhook", url).block)

    def put(self, key, **fields) -> None:
        message = Message(key=key, kind="failure", style="icons", subject=key, **fields)
        put(self.folder, load_recipients(self.folder), message)

    @property
    def files(self) -> list:
        return list((self.folder / FOLDER / outbox.OUTBOX).glob("*.json"))

    def make_due(self) -> None:
        for path in self.files:
            pending = outbox._read(path)
            outbox._write(path, pending.model_copy(update={"due_at": pending.message.made_at}))


def test_a_message_is_sent_once_and_leaves_the_outbox(tmp_path, monkeypatch):
    with webhook() as received:
        home = Home(tmp_path, monkeypatch, received.url)
        home.put("one")
        home.put("one")
        assert deliver(tmp_path) == 1
        assert deliver(tmp_path) == 0
    assert received.titles == ["one"]
    assert home.files == []


def test_a_message_that_does_not_arrive_is_tried_a_few_times_and_later_again_in_order(tmp_path, monkeypatch, caplog):
    with webhook() as received:
        received.status = 503
        home = Home(tmp_path, monkeypatch, received.url)
        home.put("one")
        home.put("two")
        assert deliver(tmp_path, retry_seconds=(0.01, 0.01)) == 0
        assert received.titles == ["one"] * 3  # the second would fail in the same way
        assert len(home.files) == 2
        assert deliver(tmp_path) == 0
        assert len(received.titles) == 3  # not due yet

        received.status = 200
        home.make_due()
        assert deliver(tmp_path) == 2
    assert received.titles[3:] == ["one", "two"]
    assert "webhook at 127.0.0.1: its server answered with status 503" in caplog.text
    assert SECRET not in caplog.text


def test_after_three_days_a_message_is_given_up(tmp_path, monkeypatch, caplog):
    with webhook() as received:
        received.status = 503
        home = Home(tmp_path, monkeypatch, received.url)
        home.put("old", made_at=datetime.now(UTC) - timedelta(days=4))
        assert deliver(tmp_path, retry_seconds=()) == 0
    assert received.titles == ["old"]
    assert home.files == []
    assert "given up" in caplog.text


def test_a_server_that_never_answers_holds_a_run_up_for_a_bounded_time(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(outbox, "TOTAL_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        home = Home(tmp_path, monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}/x")
        home.put("one")
        assert deliver(tmp_path) == 0
    assert "messages are still being sent" in caplog.text
    assert len(home.files) == 1


def test_messages_to_a_recipient_who_was_removed_are_dropped(tmp_path, monkeypatch):
    with webhook() as received:
        home = Home(tmp_path, monkeypatch, received.url)
        home.put("one")
        forget_recipient(tmp_path, "team")
        deliver(tmp_path)
    assert received.requests == []
    assert home.files == []
