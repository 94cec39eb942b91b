"""Values that the tasks of the loop exchange, in addition to the library's references. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from sdlora.core.config_base import FrozenConfig
from sdlora.core.errors import EvaluationError
from sdlora.records.decision import Answer
from sdlora.records.duel import load_duel
from sdlora.records.export import ExportRecord

HELD_OUT_HINT = (
    "Other images are held out now than at its publication. With force (`sdlora run --force`) it is judged again on "
    "these; nothing is trained, and its published evidence stays."
)


ADOPTED_HINT = "With force (`sdlora adopt --force`) it is judged again on today's images; its published evidence stays."


class RunRef(FrozenConfig):
    """Run of the loop, and the folder of its results: checkpoints, adapter, evaluation, release."""

    digest: str
    folder: Path

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation"

    @property
    def release(self) -> Path:
        return self.folder / "release"

    def duel_folder(self, inputs_digest: str) -> Path:
        """Folder of the duel with these inputs: `evaluation` if it is there, else a folder of a later duel."""
        try:
            first = load_duel(self.evaluation)
        except EvaluationError:  # no finished duel
            first = None
        if first and first.inputs_digest == inputs_digest:
            return self.evaluation
        return self.folder / "later-duels" / inputs_digest[:16]

    def decision_folder(self, decision_digest: str) -> Path:
        """Folder of a decision after the publication: its report, and the identity of its record in MLflow."""
        return self.folder / "later-decisions" / decision_digest[:16]

    @property
    def samples(self) -> Path:
        """Contact sheet of the images drawn during training; the file may be missing."""
        return self.folder / "samples" / "contact-sheet.png"


class LaterDecision(FrozenConfig):
    """Decision on a published version: its folders, and the outcome in words."""

    duel: Path
    record: Path
    verdict: str


class Release(FrozenConfig):
    """Outcome of a run of the loop.

    Attributes:
        new: False if the run ended without a decision, because the version existed before.
        promoted: True if the gate made the version the champion.
        waits: True if a person decides on the version.
        answer: answer of the gate; None if it is not recorded.
        standing: what a person decided on the version, or why it waits no longer; empty without such a change.
        later: decision of this run on a version that was published before; None at the publication itself.
        other_held_out: True if the held-out images are other ones now than at the publication.
        export: the champion's file for a drawing tool; None without the setting `export.on_promote`.
        inputs: digest of the dataset's rows that the run read, see `sdlora.store.inputs`; None if unknown.
    """

    name: str
    version: int
    new: bool
    promoted: bool
    reasons: tuple[str, ...]
    run: RunRef
    waits: bool = False
    answer: Answer | None = None
    standing: str = ""
    later: LaterDecision | None = None
    other_held_out: bool = False
    export: ExportRecord | None = None
    inputs: str | None = None

    @property
    def next_steps(self) -> tuple[str, ...]:
        """Commands with which a person may decide now, each in a sentence."""
        arguments = f"{self.name} --version {self.version}"
        if self.new and self.later is None and not (self.promoted or self.waits or self.standing):
            return (f"To make version {self.version} the champion all the same, type: sdlora promote {arguments}",)
        if self.waits:
            return (
                f"To make version {self.version} the champion, type: sdlora promote {arguments}",
                f"To keep things as they are, type: sdlora reject {arguments}",
            )
        return ()

    @property
    def report(self) -> Path:
        return (self.later.record if self.later else self.run.release) / "report.html"

    @property
    def data_page(self) -> Path:
        return self.run.release / "data.html"

    @property
    def evaluation(self) -> Path:
        """Folder of the duel that decided."""
        return self.later.duel if self.later else self.run.evaluation

    @property
    def grid(self) -> Path:
        return self.evaluation / "before-after.png"
