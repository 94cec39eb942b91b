"""What is recorded of a web address, and what older stores recorded of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import select

from sdlora.store import database
from sdlora.store.addresses import redacted_url
from sdlora.store.image_store import ImageStore
from sdlora.store.intake import SeenFile, record_files, register_source
from sdlora.store.location import StoreLocation
from sdlora.store.records import Caption
from sdlora.store.tables import CaptionTable, FileTable
from tests.stores import both_places

SECRET = "S3cr3t"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (
            "https://b.s3.amazonaws.com/cat?versionId=7&X-Amz-Credential=S3cr3t%2Fus&X-Amz-Date=1&X-Amz-Signature=S3cr3t",
            "https://b.s3.amazonaws.com/cat?versionId=7",
        ),
        (
            "https://b.s3.amazonaws.com/cat?AWSAccessKeyId=S3cr3t&Expires=1&Signature=S3cr3t",
            "https://b.s3.amazonaws.com/cat",
        ),
        (
            "https://d1.cloudfront.net/a?w=64&Policy=S3cr3t&Signature=S3cr3t&Key-Pair-Id=K",
            "https://d1.cloudfront.net/a?w=64",
        ),
        (
            "https://storage.googleapis.com/b/o?X-Goog-Date=1&X-Goog-Signature=S3cr3t",
            "https://storage.googleapis.com/b/o",
        ),
        (
            "https://a.blob.core.windows.net/c/cat?sv=2024-01-01&st=1&se=2026-01-01&sr=b&sp=r&sig=S3cr3t%3D",
            "https://a.blob.core.windows.net/c/cat",
        ),
        (
            "https://cdn.discordapp.com/attachments/1/2/a.png?ex=1&is=2&hm=S3cr3t&",
            "https://cdn.discordapp.com/attachments/1/2/a.png",
        ),
        ("https://user:S3cr3t@host:8080/a.png", "https://host:8080/a.png"),
        ("https://host/a.png#access_token=S3cr3t", "https://host/a.png"),
        ("https://host/cat.JPG?width=64&token=S3cr3t&expires=9", "https://host/cat.JPG?width=64"),
    ],
)
def test_signatures_tokens_and_passwords_are_left_out_and_the_rest_stays(url: str, name: str) -> None:
    assert redacted_url(url).name == name
    assert SECRET not in redacted_url(url).marked


@pytest.mark.parametrize(
    "url",
    [
        *("https://host/a.png", "https://host/image?id=7&size=large", "https://host/a?v=1&sv=2"),
        *("https://h/@x/a.png?s=~1", "https://Host:443/a/../ä|{}.png?x=%2f&y=ö", "https://h/a;v=2.png?id=7"),
    ],
)
def test_an_address_without_secrets_stays_as_it_is(url: str) -> None:
    assert redacted_url(url) == redacted_url(redacted_url(url).name)
    assert redacted_url(url).name == redacted_url(url).marked == url


def test_where_the_path_names_no_file_a_digest_stands_for_the_secret_because_it_may_tell_files_apart() -> None:
    one, other = (redacted_url(f"https://host/image.php?size=9&key=S3cr3t{number}") for number in (1, 2))
    assert one.name != other.name
    assert one.name.startswith("https://host/image.php?size=9&secret=~")
    assert SECRET not in one.name


@pytest.mark.parametrize(
    "url",
    [
        "https://user:S3cr3t@[::1/a.png?token=S3cr3t",
        "https://user:S3cr3t@h\u2100.example/a.png#S3cr3t",
        "https://user:S3cr3t@host:1_0/a?token=S3cr3t",
        "https://user@S3cr3t@host/a.png?x=1",
    ],
)
def test_what_is_no_address_shows_no_secret_either(url: str) -> None:
    assert SECRET not in redacted_url(url).name + redacted_url(url).marked


def _recorded(store: ImageStore) -> list[tuple[str, str]]:
    return sorted((image.files[0].partition("/")[2], image.captions[0]) for image in store.images() if image.files)


@both_places
def test_a_store_of_before_forgets_the_secrets_and_keeps_files_and_captions(
    store: ImageStore, tmp_path: Path, location: StoreLocation
) -> None:
    signed = "https://b.s3.amazonaws.com/cat?X-Amz-Date={}&X-Amz-Signature=S3cr3t"
    token = "https://host/render.png?token=S3cr3t{}"
    rows = [
        ("https://host/plain?id=1", "1"),
        (signed.format(1), "2"),
        (signed.format(2), "2"),  # the same image on another day
        (token.format(1), "3"),
        (token.format(2), "4"),  # another image, told apart by nothing else
        ("https://host/lone.png?token=S3cr3t", "5"),
    ]
    with store.write() as session:
        source_id = register_source(session, "key", "urls.txt")
        files = [
            SeenFile(path, digit * 64, 1, captions=(Caption(f"caption {digit}", "metadata"),)) for path, digit in rows
        ]
        record_files(session, source_id, files)
        config = Config()
        config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
        config.attributes["connection"] = session.connection()
        command.downgrade(config, "0006")
    with ImageStore.open(tmp_path / "home", location) as opened:
        first, second = (redacted_url(token.format(number)).marked for number in (1, 2))
        assert _recorded(opened) == sorted(
            [
                ("https://host/plain?id=1", "caption 1"),
                ("https://b.s3.amazonaws.com/cat", "caption 2"),
                (first, "caption 3"),
                (second, "caption 4"),
                ("https://host/lone.png", "caption 5"),
            ]
        )
        with opened.read() as session:
            assert not [path for path in session.scalars(select(FileTable.path)) if SECRET in path]
            assert len(session.scalars(select(CaptionTable.text)).all()) == 5
