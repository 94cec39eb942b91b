"""What is recorded of a web address."""

from __future__ import annotations

import pytest

from sdlora.store.addresses import redacted_url

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
