from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sdlora.evaluation.config import GateConfig
from sdlora.evaluation.gate import decide
from sdlora.records.choice import Choice
from sdlora.records.metrics import Estimate
from sdlora.release.record import DataSummary, RejectedImage
from sdlora.release.report import render_report, write_report
from tests.unit.evaluation.made_duel import CANDIDATE, around, made_duel
from tests.unit.release.made_record import FULL_DATA, made_record


class Page(HTMLParser):
    """Collects tags, and fails on elements that are closed in the wrong order."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "path", "line", "circle", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def test_the_page_names_the_decision_first_and_every_check(tmp_path: Path) -> None:
    record = made_record(tmp_path)
    text = Page(render_report(record)).text
    headings = ("Promoted to champion", "Before and after", "Duel", "Training", "Data", "Nearest training images")
    positions = [text.rindex(f"\n{words}\n") for words in headings]
    assert positions == sorted(positions)
    assert all(check.reason in text for check in record.decision.checks)


def test_a_kept_champion_is_told_with_what_failed(tmp_path: Path) -> None:
    duel = made_duel(candidate=CANDIDATE | {"kid": around(0.5, 0.03)}, folder=tmp_path / "evaluation", reach=0.01)
    text = Page(render_report(made_record(tmp_path, duel=duel, decision=decide(duel, GateConfig())))).text
    assert "Champion kept" in text
    assert "Promoted" not in text
    assert "Worse than the champion: KID 0.5000" in text


def test_nothing_is_loaded_from_outside_and_no_script_runs(tmp_path: Path) -> None:
    page = Page(render_report(made_record(tmp_path)))
    assert "script" not in {tag for tag, _ in page.tags}
    resources = [attrs["src"] for _, attrs in page.tags if "src" in attrs]
    assert len(resources) == 2 * (4 + 2) + 1  # two prompts: strip and neighbours; one rejected image
    assert all(source.startswith("data:image/") for source in resources)
    assert not [attrs["href"] for _, attrs in page.tags if "href" in attrs]
    assert not any(name.startswith("on") or name == "style" for _, attrs in page.tags for name in attrs)


def test_the_policy_allows_the_pages_own_style_and_data_images_only(tmp_path: Path) -> None:
    text = render_report(made_record(tmp_path))
    style = re.search(r"<style>(.*)</style>", text, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = next(a["content"] for t, a in Page(text).tags if t == "meta" and a.get("http-equiv"))
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_text_from_outside_is_escaped_wherever_it_is_shown(tmp_path: Path) -> None:
    attack = "<img src=x onerror=alert(1)>\"'</style></pre>{{ 7 * 7 }}"
    duel = made_duel(prompts=(attack, "b"), folder=tmp_path / "evaluation", reach=0.01)
    data = replace(
        FULL_DATA,
        rejected=[RejectedImage(attack, attack, b"")],
        licences={attack: 1},
        sources={attack: 1},
        reasons={attack: 1},
        captions=[attack] * 3,
    )
    record = made_record(
        tmp_path, name=attack, version=attack, base_name=attack, duel=duel, data=data, code_version=attack,
        settings={attack: attack},
    )  # fmt: skip
    text = render_report(record)
    page = Page(text)
    assert "<img src=x" not in text
    assert "{{ 7 * 7 }}" in page.text  # shown, not evaluated
    assert all(attrs["src"].startswith("data:image/") for _, attrs in page.tags if "src" in attrs)


def test_the_page_says_which_steps_adapter_was_kept_and_by_how_much(tmp_path: Path) -> None:
    choice = Choice(
        rule="best",
        step=300,
        trained_steps=600,
        stopped_early=False,
        validation_loss=0.25,
        against_last=Estimate(value=-0.02, low=-0.03, high=-0.01),
    )
    page = render_report(made_record(tmp_path, choice=choice))
    assert "The adapter of step 300 of 600 was kept" in page
    assert "against the last step -0.02 [-0.03, -0.01]" in page


def test_a_first_version_without_rejected_images_curves_or_settings_is_a_whole_page(tmp_path: Path) -> None:
    data = DataSummary(train_count=8, held_out_count=4)
    record = made_record(tmp_path, champion=False, data=data, curves=(), settings={})
    text = Page(render_report(record)).text
    assert "No image was rejected." in text
    assert "champion" not in text.split("Before and after")[1].split("Evidence")[0]
    assert "none yet" in text
    assert "Training\n" not in text


def test_missing_pictures_leave_a_placeholder(tmp_path: Path) -> None:
    record = made_record(tmp_path)
    for path in (tmp_path / "evaluation" / "samples").iterdir():
        path.unlink()
    assert Page(render_report(record)).text.count("no image") == 2 * (4 + 2)


def test_an_unreadable_rejected_image_is_shown_as_such(tmp_path: Path) -> None:
    text = Page(render_report(made_record(tmp_path))).text
    assert "unreadabletorn.pngunreadable: the file ends early" in text


def test_a_metric_that_was_not_measured_says_so(tmp_path: Path) -> None:
    scores = {name: value for name, value in CANDIDATE.items() if name != "fid"}
    duel = made_duel(candidate=scores, folder=tmp_path / "evaluation")
    text = Page(render_report(made_record(tmp_path, duel=duel, decision=decide(duel, GateConfig())))).text
    assert "not measured" in text
    assert "Missing metric fid (candidate)" in text


def test_differences_are_judged_by_their_interval_and_direction(tmp_path: Path) -> None:
    page = Page(render_report(made_record(tmp_path)))
    rows = page.text.split("Duel")[1]
    kid = rows[rows.index("KID") : rows.index("FID")]
    assert "base −0.4198better" in kid.replace("\n", "")  # lower is better
    psnr = rows[rows.index("Denoising PSNR") : rows.index("Denoising SSIM")]
    assert "base +3.80better" in psnr.replace("\n", "")  # higher is better


def test_a_difference_that_is_not_a_number_is_neither_better_nor_worse(tmp_path: Path) -> None:
    nan = Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    duel = made_duel(candidate=CANDIDATE | {"denoising_psnr": nan}, folder=tmp_path / "evaluation")
    rows = Page(render_report(made_record(tmp_path, duel=duel, decision=decide(duel, GateConfig())))).text
    psnr = rows[rows.rindex("Denoising PSNR") : rows.rindex("Denoising SSIM")].replace("\n", "")
    assert psnr.count("nannot measured") == 2  # against the base and against the champion
    assert "better" not in psnr.replace("higher is better", "")


def test_the_report_is_written_whole(tmp_path: Path) -> None:
    path = write_report(tmp_path / "new", made_record(tmp_path))
    assert path.read_text().rstrip().endswith("</html>")
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"a": {"b": {"c": 1}}}, [("a.b.c", "1")]),
        ({"a": (1, 2), "b": None, "c": []}, [("a", "1, 2"), ("b", "none"), ("c", "none")]),
    ],
)
def test_settings_are_shown_by_their_dotted_names(
    tmp_path: Path, settings: dict[str, object], expected: list[tuple[str, str]]
) -> None:
    page = render_report(made_record(tmp_path, settings=settings))
    assert re.findall(r'<td class="mono">(.*?)</td><td class="mono break">(.*?)</td>', page) == expected


def test_a_later_decision_says_of_the_champion_that_it_stays(tmp_path):
    record = replace(made_record(tmp_path), is_champion=True)
    refused = replace(record, decision=record.decision.model_copy(update={"promote": False, "answer": "worse"}))
    for one, verdict in ((record, "Confirmed as champion"), (refused, "Not confirmed, but still champion")):
        assert one.decision.promote is (one is record)
        assert verdict in render_report(one)
    assert "stays the one in use" in render_report(refused)
    assert "No adapter is in use" not in render_report(refused)
