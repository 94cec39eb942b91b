"""The flow `collect` on a real Prefect server, from sources of three kinds."""

from __future__ import annotations

import zipfile
from pathlib import Path

from flows.collect import collect
from sdlora.store.image_store import ImageStore


def test_every_source_is_collected_and_judged(tmp_path: Path, first_images: Path, later_images: Path) -> None:
    with zipfile.ZipFile(tmp_path / "later.zip", "w") as archive:
        for path in sorted(later_images.iterdir()):
            archive.write(path, path.name)
        archive.writestr("../escape.png", b"x")
    report = collect(sources=(str(first_images), str(tmp_path / "later.zip")), home=tmp_path / "home")
    with ImageStore.open(tmp_path / "home") as store:
        dataset = store.dataset("style")
        counts = dataset.counts()
        names = {image.files[0].partition("/")[0] for image in dataset.images()}
    assert names == {first_images.name, "later.zip"}
    assert counts.pending == 0
    assert (counts.total, counts.rejected_by["unreadable"]) == (41, 1)
    assert report.decided >= 41
    assert not (tmp_path / "escape.png").exists()
