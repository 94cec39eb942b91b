"""The history of champions: one row a decision, and no two champions at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sdlora.core.errors import DataError, EvaluationError
from sdlora.records.champions import ChampionHistory, HistoryEntry, Question, ScoredVersion, Verdict
from sdlora.records.decision import Decision
from sdlora.store.champions import (
    champion_history,
    record_decision,
    record_manual_change,
    record_verdict,
    styles_with_history,
)
from sdlora.store.image_store import ImageStore
from sdlora.store.lineage import adopted_versions, published_digests, record_version
from sdlora.store.location import StoreLocation
from tests.stores import both_places
from tests.waiting import PATIENCE_SECONDS

STYLE = "icons"


def version(number: int) -> ScoredVersion:
    digest = f"{number:x}" * 64
    return ScoredVersion(number, digest[:64], "5" * 64, f"run {number}", 40, "kid", 0.4 + number / 100, 0.9)


def decision(number: int, champion: int | None = None, *, promote: bool = True, duel: str = "d") -> Decision:
    """The gate's answer on a duel of a version with the champion."""
    return Decision(
        promote=promote,
        reasons=("Clearly better than the base model.", "Fast enough.") if promote else ("Perhaps worse.",),
        checks=(),
        duel_digest=duel * 64,
        candidate_digest=version(number).adapter_digest,
        champion_digest=version(champion).adapter_digest if champion else None,
    )


def decide(store: ImageStore, number: int, champion: int | None = None, **how: object):
    with store.write() as session:
        return record_decision(session, STYLE, version(number), decision(number, champion, **how), champion)


def move(store: ImageStore, seen: ChampionHistory, number: int | None):
    with store.write() as session:
        chosen = version(number) if number else None
        return record_manual_change(session, seen, "moved by hand", chosen, "ana", "I like it better")


def history(store: ImageStore) -> ChampionHistory:
    with store.read() as session:
        return champion_history(session, STYLE)


def told(store: ImageStore) -> Sequence[tuple[object, ...]]:
    return [(e.number, e.kind, e.version.number, e.from_version, e.to_version) for e in history(store).entries]


@both_places
def test_every_decision_and_move_is_a_row_with_who_why_when_and_all_digests(store: ImageStore) -> None:
    decide(store, 1, promote=False)
    decide(store, 2)
    decide(store, 3, 2)
    decide(store, 4, 3, promote=False)
    move(store, history(store), 2)
    move(store, history(store), None)
    assert told(store) == [
        (1, "refused", 1, None, None),
        (2, "first champion", 2, None, 2),
        (3, "promoted", 3, 2, 3),
        (4, "refused", 4, 3, 3),
        (5, "moved by hand", 2, 3, 2),
        (6, "moved by hand", 2, 2, None),
    ]
    entries = history(store).entries
    assert entries[2].version == version(3)
    assert (entries[2].who, entries[2].why) == ("gate", "Clearly better than the base model.\nFast enough.")
    assert (entries[2].duel_digest, entries[2].decision_digest) == ("d" * 64, decision(3, 2).digest())
    assert (entries[4].who, entries[4].why, entries[4].decision_digest) == ("ana", "I like it better", None)
    assert [e.passed_gate for e in entries] == [False, True, True, False, None, None]
    assert entries[0].decided_at.utcoffset() is not None
    assert list(entries) == sorted(entries, key=lambda entry: entry.decided_at)
    assert history(store).champion is None


@both_places
def test_the_same_decision_again_adds_no_row_until_the_champion_has_moved(store: ImageStore) -> None:
    first = decide(store, 1)
    assert decide(store, 1) == first
    refused = decide(store, 2, 1, promote=False)
    assert decide(store, 2, 1, promote=False) == refused
    assert decide(store, 1) == first  # the repeated publishing of the champion itself
    assert len(told(store)) == 2
    move(store, history(store), None)
    assert decide(store, 1).number == 4
    assert history(store).champion == version(1)


@both_places
def test_a_champion_that_is_judged_again_stays_champion_whatever_the_gate_says(store: ImageStore) -> None:
    decide(store, 1)
    with store.write() as session:
        record_decision(session, STYLE, version(1), decision(1, duel="e"), 1)
        record_decision(session, STYLE, version(1), decision(1, duel="f", promote=False), 1)
    assert told(store)[1:] == [(2, "confirmed", 1, 1, 1), (3, "not confirmed", 1, 1, 1)]
    assert [e.passed_gate for e in history(store).entries] == [True, True, False]


def test_the_rival_is_the_champion_or_of_the_champion_itself_the_one_before(store: ImageStore) -> None:
    assert history(store).opponent("run 1") is None
    decide(store, 1)
    assert history(store).opponent("run 1") is None
    assert history(store).opponent("run 2") == version(1)
    decide(store, 2, 1)
    decide(store, 3, 2, promote=False)
    assert history(store).opponent("run 2") == version(1)
    assert history(store).opponent("run 3") == version(2)


def test_a_run_that_gave_the_champions_adapter_again_is_no_rival_of_it(store: ImageStore) -> None:
    decide(store, 1)
    decide(store, 2, 1)
    again = replace(version(2), run_digest="another run")
    with store.write() as session:
        record_decision(session, STYLE, again, decision(2, 1, duel="e"), 2)
    assert history(store).opponent("another run") == version(1)
    assert history(store).opponent("run 2") == version(1)


def test_styles_have_histories_of_their_own(store: ImageStore) -> None:
    decide(store, 1)
    with store.write() as session:
        entry = record_decision(session, "portraits", version(7), decision(7), None)
    assert (entry.number, entry.kind) == (1, "first champion")
    with store.read() as session:
        assert styles_with_history(session) == ["icons", "portraits"]
    assert len(told(store)) == 1


def test_a_move_that_rests_on_an_old_history_is_not_made(store: ImageStore) -> None:
    decide(store, 1)
    seen = history(store)
    decide(store, 2, 1)
    assert move(store, seen, 1) is None
    assert history(store).champion == version(2)
    with pytest.raises(EvaluationError, match="'portraits' has no champion"), store.write() as session:
        record_manual_change(session, ChampionHistory("portraits"), "moved by hand", None, "ana", "")


def _promote(location: StoreLocation, home: Path, start: object, number: int, said: object) -> None:
    with ImageStore.open(home, location) as store:
        start.wait()
        try:
            decide(store, number, 1)
        except EvaluationError as error:
            said.put(str(error))
        else:
            said.put(f"version {number} promoted")


@both_places
def test_of_two_promotions_at_once_in_two_processes_one_wins_and_the_other_is_told(
    store: ImageStore, location: StoreLocation, tmp_path: Path
) -> None:
    decide(store, 1)
    spawn = multiprocessing.get_context("spawn")
    start, said = spawn.Barrier(2), spawn.Queue()
    workers = [
        spawn.Process(target=_promote, args=(location, tmp_path / "home", start, number, said), daemon=True)
        for number in (2, 3)
    ]
    for worker in workers:
        worker.start()
    refused, promoted = sorted(said.get(timeout=PATIENCE_SECONDS) for _ in workers)
    for worker in workers:
        worker.join()
    winner = int(promoted.split()[1])
    loser = {2: 3, 3: 2}[winner]
    assert told(store)[1:] == [(2, "promoted", winner, 1, winner)]
    assert "The champion of 'icons' changed during the duel" in refused
    assert f"version 1 before, version {winner} now. Version {loser} stays a candidate" in refused


def test_a_decision_is_recorded_with_all_else_of_its_transaction_or_not_at_all(store: ImageStore) -> None:
    def publish() -> None:
        with store.write() as session:
            record_decision(session, STYLE, version(1), decision(1), None)
            record_version(session, STYLE, 1, version(1).adapter_digest, "no such snapshot")

    with pytest.raises(DataError, match="not in this image database"):
        publish()
    assert told(store) == []


@both_places
def test_an_adapter_from_a_file_becomes_champion_as_adopted_with_the_reason_of_its_person(store: ImageStore) -> None:
    decide(store, 1)
    for number, promote in ((2, False), (3, True)):
        adopted = replace(version(number), snapshot_digest=None, train_count=None)
        with store.write() as session:
            record_version(session, STYLE, number, adopted.adapter_digest, None)
            record_version(session, STYLE, number, adopted.adapter_digest, None)  # repeated
            answer = decision(number, 1, promote=promote)
            record_decision(session, STYLE, adopted, answer, 1, "Adopted from the file a.safetensors by ann.")
    assert told(store)[1:] == [(2, "refused", 2, 1, 1), (3, "adopted", 3, 1, 3)]
    entry = history(store).entries[-1]
    assert entry.why.splitlines()[:2] == [
        "Adopted from the file a.safetensors by ann.",
        "Clearly better than the base model.",
    ]
    assert (entry.passed_gate, entry.version.snapshot_digest) == (True, None)
    with store.read() as session:
        assert [one.label for one in adopted_versions(session)] == ["icons version 2", "icons version 3"]
        assert version(3).adapter_digest in published_digests(session)


def wait(store: ImageStore, number: int, champion: int | None = None, duel: str = "d") -> HistoryEntry:
    with store.write() as session:
        asked = decision(number, champion, promote=False, duel=duel)
        asked = asked.model_copy(update={"waits": True, "answer": "cannot tell"})
        return record_decision(session, STYLE, version(number), asked, champion)


def answer(store: ImageStore, verdict: Verdict, number: int, seen: ChampionHistory | None = None):
    with store.write() as session:
        return record_verdict(session, seen or history(store), verdict, version(number), "ana", "looks right")


@both_places
def test_a_candidate_waits_until_a_person_decides_on_it(store: ImageStore) -> None:
    waiting = wait(store, 1)
    assert (waiting.kind, waiting.answer, waiting.to_version, waiting.passed_gate) == (
        "waiting",
        "cannot tell",
        None,
        None,
    )
    assert history(store).waiting == waiting
    assert history(store).question == Question(STYLE, 1, version(1).adapter_digest, "d" * 64, None)
    promoted = answer(store, "promoted", 1)
    assert (promoted.kind, promoted.who, promoted.why, promoted.to_version) == (
        "first champion",
        "ana",
        "looks right",
        1,
    )
    assert (promoted.duel_digest, promoted.decision_digest) == (waiting.duel_digest, waiting.decision_digest)
    assert (promoted.answer, promoted.passed_gate, promoted.is_by_gate) == (None, None, False)
    assert history(store).waiting is None
    assert wait(store, 1) == promoted  # the publishing is repeated: the person's answer stands
    wait(store, 2, 1)
    rejected = answer(store, "rejected", 2)
    assert (rejected.kind, rejected.from_version, rejected.to_version) == ("rejected", 1, 1)
    assert history(store).waiting is None
    assert wait(store, 2, 1) == rejected
    assert history(store).champion == version(1)
    with pytest.raises(EvaluationError, match="Version 1 of 'icons' is the champion already"):
        answer(store, "promoted", 1)


def test_a_waiting_candidate_is_void_after_a_move_a_newer_candidate_or_another_decision(store: ImageStore) -> None:
    decide(store, 1)
    wait(store, 2, 1)
    decide(store, 3, 1, promote=False)
    assert history(store).waiting.version == version(2)  # a refused newer version takes nothing away
    wait(store, 4, 1)
    assert history(store).waiting.version == version(4)
    move(store, history(store), 2)
    assert history(store).waiting is None
    wait(store, 5, 2, duel="a")
    decide(store, 5, 2, promote=False, duel="b")
    assert history(store).waiting is None
    wait(store, 6, 2)
    move(store, history(store), None)
    assert history(store).waiting is None


def test_an_answer_to_an_old_history_is_not_recorded(store: ImageStore) -> None:
    wait(store, 1)
    seen = history(store)
    wait(store, 2)
    assert answer(store, "promoted", 1, seen) is None
    assert history(store).champion is None


def test_rollbacks_go_further_and_further_back(store: ImageStore) -> None:
    assert history(store).previous_champion is None
    decide(store, 1)
    assert history(store).previous_champion is None
    decide(store, 2, 1)
    decide(store, 3, 2)
    for expected in (2, 1):
        assert history(store).previous_champion == version(expected)
        with store.write() as session:
            record_manual_change(session, history(store), "rolled back", version(expected), "ana", "")
    assert history(store).previous_champion is None
    decide(store, 4, 1)
    assert history(store).previous_champion == version(1)
    move(store, history(store), None)
    assert history(store).previous_champion == version(4)
