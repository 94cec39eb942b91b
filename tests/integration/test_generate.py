from __future__ import annotations

import pytest
from PIL import Image

from flows.generate import generate
from flows.retrain import retrain
from sdlora.core.errors import ConfigError
from sdlora.store.image_store import ImageStore
from sdlora.store.tables.ratings import GenerationTable
from tests.settings import run_flow


@pytest.fixture(scope="module")
def line(config, home):
    run_flow(retrain, config.model_copy(update={"name": "drawn"}), home)
    return {"name": "drawn", "home": home}


def test_images_are_drawn_by_version_and_remembered(line, home):
    paths = generate("a red circle", which="1", seed=5, count=2, steps=2, **line)
    assert [Image.open(path).size for path in paths] == [(64, 64), (64, 64)]
    with ImageStore.open(home) as store, store.read() as session:
        rows = (
            session.query(GenerationTable)
            .filter_by(model_version="drawn version 1")
            .order_by(GenerationTable.seed)
            .all()
        )
        assert [(row.model_version, row.prompt, row.seed) for row in rows] == [
            ("drawn version 1", "a red circle", 5),
            ("drawn version 1", "a red circle", 6),
        ]
        assert [store.read_bytes(row.sha256) for row in rows] == [path.read_bytes() for path in paths]


def test_the_same_seed_draws_the_same_image_and_the_adapter_changes_it(line):
    first, again, bare = (
        generate("a red circle", which=which, seed=5, count=1, steps=2, **line)[0].read_bytes()
        for which in ("candidate", "1", "base")
    )
    assert first == again != bare


def test_a_version_that_is_not_there_is_told_with_those_that_are(line):
    with pytest.raises(ConfigError, match=r"'drawn' has no version 7\. Its versions: 1"):
        generate("a red circle", which="7", **line)
    with pytest.raises(ConfigError, match="has no champion"):
        generate("a red circle", **line)
    with pytest.raises(ConfigError, match=r"'new' has no versions yet. Make one: sdlora run new\..*: .*drawn"):
        generate("a red circle", **{**line, "name": "new"})
