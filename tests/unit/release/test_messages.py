"""Words of messages: the outcome in one line, plain text without control characters, bounded in length."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sdlora.records.champions import HistoryEntry, ScoredVersion
from sdlora.release.messages import (
    KINDS,
    MAX_LINE_CHARACTERS,
    MAX_LINES,
    MEANINGS,
    decision_message,
    failure_message,
    given_up_message,
    images_given_up_message,
    silence_message,
)

WHEN = datetime(2026, 11, 30, 3, tzinfo=UTC)


def entry(kind, version=3, before=2, after=3, who="gate", gate=True, why="KID 0.2 against 0.4\nPSNR is fine"):
    digest = "d" * 64 if gate else None
    return HistoryEntry(7, kind, ScoredVersion(version, "a" * 64), before, after, who, why, WHEN, digest, digest)


@pytest.mark.parametrize(
    ("found", "kind", "words"),
    [
        (entry("first champion", before=None), "promotion", "version 3 is the first champion"),
        (entry("adopted", before=None), "promotion", "version 3, adopted from a file, is the new champion"),
        (entry("adopted"), "promotion", "adopted from a file, is the new champion, after version 2"),
        (entry("promoted"), "promotion", "version 3 is the new champion, after version 2"),
        (entry("promoted", who="ana", gate=False), "promotion", "after version 2 by ana"),
        (entry("confirmed", before=3), "promotion", "version 3 passed again and stays champion"),
        (entry("not confirmed", before=3), "refusal", "version 3 did not pass again and stays champion"),
        (entry("rejected", after=2, who="ana"), "refusal", "version 3 was rejected by ana; version 2 stays champion"),
        (entry("refused", after=2), "refusal", "version 3 did not pass; version 2 stays champion"),
        (entry("refused", before=None, after=None), "refusal", "there is no champion yet"),
        (entry("rolled back", 2, 3, 2, "ana", gate=False), "promotion", "rolled back to version 2 by ana"),
        (entry("moved by hand", 3, 3, None, "a person", gate=False), "promotion", "no champion any more"),
    ],
)
def test_each_entry_of_the_history_has_its_words(found, kind, words):
    message = decision_message("icons", found)
    assert message.kind == kind
    assert message.subject.startswith("icons: ")
    assert words in message.subject
    assert message.lines == ("KID 0.2 against 0.4", "PSNR is fine")


def test_a_decision_has_one_key_however_often_it_is_told():
    keys = {decision_message("icons", entry("promoted")).key for _ in range(2)}
    assert keys == {"decision-icons-7"}
    assert decision_message("other", entry("promoted")).key not in keys


def test_a_waiting_candidate_comes_with_the_lines_to_type():
    message = decision_message("icons", entry("waiting", 4, why="The interval contains zero."))
    assert message.kind == "waiting"
    assert "version 4 waits for your decision" in message.subject
    assert message.lines[0] == "The interval contains zero."
    assert "sdlora promote icons --version 4" in message.lines[-1]
    assert "sdlora reject icons --version 4" in message.lines[-1]


def test_foreign_text_is_escaped_and_bounded():
    message = failure_message("icons", "run\x1b[2J", "1", "\u202eevil " + "x" * 9999 + "\nnext" * 99)
    assert all(line.isprintable() and len(line) <= MAX_LINE_CHARACTERS for line in message.lines)
    assert len(message.lines) == MAX_LINES
    assert message.lines[-1].startswith("... and")
    assert "\\x1b[2J" in message.lines[0]


def test_a_silent_source_and_a_training_that_is_given_up_say_what_was_counted():
    silent = silence_message("icons", "'./gone'", 3, WHEN, "it does not exist")
    assert "The last 3 collections, since 2026-11-30 03:00 UTC" in silent.lines[1]
    assert silent.lines[-1] == "it does not exist"
    given_up = given_up_message("icons", "f" * 64, "a" * 64, 3, "loss is not a number")
    assert "failed 3 times" in given_up.lines[0]
    assert given_up.lines[-1].endswith("sdlora run icons")  # a person's run is never refused
    images = images_given_up_message("icons", "f" * 64, "a" * 64, 3, "Failed: the base model is not there")
    assert images.lines[:2] == (
        "New images started 3 runs, and none of them ended well. The last one:",
        "Failed: the base model is not there",
    )
    assert images.facts == {"data_digest": "f" * 64, "settings_digest": "a" * 64, "times": 3}


def test_people_hear_again_if_the_corrected_settings_fail_too():
    keys = {given_up_message("icons", "f" * 64, settings, 3, "x").key for settings in ("a" * 64, "b" * 64, None)}
    assert len(keys) == 3


def test_every_kind_has_a_meaning():
    assert tuple(MEANINGS) == KINDS
