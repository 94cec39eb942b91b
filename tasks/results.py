"""Values that the tasks of the loop exchange, in addition to the library's references. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from sdlora.core.config_base import FrozenConfig


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

    @property
    def samples(self) -> Path:
        """Contact sheet of the images drawn during training; the file may be missing."""
        return self.folder / "samples" / "contact-sheet.png"


class Release(FrozenConfig):
    """Outcome of a run of the loop. `new` is false if the version existed before."""

    name: str
    version: int
    new: bool
    promoted: bool
    reasons: tuple[str, ...]
    run: RunRef

    @property
    def report(self) -> Path:
        return self.run.release / "report.html"

    @property
    def data_page(self) -> Path:
        return self.run.release / "data.html"

    @property
    def grid(self) -> Path:
        return self.run.evaluation / "before-after.png"
