"""Files from the web are called by their address without signatures, tokens and passwords. These do not come back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import sqlalchemy as sa
from alembic import op

from sdlora.store.addresses import redacted_url

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_files = sa.table("files", sa.column("id"), sa.column("source_id"), sa.column("path"))
_captions = sa.table(
    "captions", sa.column("id"), sa.column("image_id"), sa.column("source_id"), sa.column("file_id"), sa.column("text")
)


def upgrade() -> None:
    connection = op.get_bind()
    for (source_id, name), ids in _renamed(connection).items():
        for file_id in _called(connection, source_id, name) + ids[:-1]:
            _merge(connection, file_id, ids[-1])
        connection.execute(sa.update(_files).where(_files.c.id == ids[-1]).values(path=name))


def downgrade() -> None:
    pass


def _renamed(connection: sa.Connection) -> Mapping[tuple[int, str], list[int]]:
    """Files by source and the address they will have, in the order they were recorded."""
    names: dict[tuple[int, str], list[tuple[int, str]]] = defaultdict(list)
    for file_id, source_id, path in _with_secrets(connection):
        address = redacted_url(path)
        names[source_id, address.name].append((file_id, address.marked))
    found: dict[tuple[int, str], list[int]] = defaultdict(list)
    for (source_id, name), listed in names.items():
        marks = {marked for _, marked in listed}
        doubtful = len(marks) > 1 or (name not in marks and _called(connection, source_id, name))
        for file_id, marked in listed:
            found[source_id, marked if doubtful else name].append(file_id)
    return found


def _called(connection: sa.Connection, source_id: int, path: str) -> list[int]:
    return list(
        connection.scalars(sa.select(_files.c.id).where(_files.c.source_id == source_id, _files.c.path == path))
    )


def _with_secrets(connection: sa.Connection) -> Iterator[tuple[int, int, str]]:
    statement = sa.select(_files).where(sa.or_(_files.c.path.like("http://%"), _files.c.path.like("https://%")))
    for file_id, source_id, path in connection.execute(statement.order_by(_files.c.id)):
        if redacted_url(path).name != path:
            yield file_id, source_id, path


def _merge(connection: sa.Connection, older: int, newer: int) -> None:
    """Give what the older row of the same file said to the newer one, which shows what is there now."""
    said = sa.select(_captions.c.image_id, _captions.c.text).where(_captions.c.file_id == newer)
    known = {(image_id, text) for image_id, text in connection.execute(said)}
    of_older = sa.select(_captions.c.id, _captions.c.image_id, _captions.c.text).where(_captions.c.file_id == older)
    for caption_id, image_id, text in connection.execute(of_older).all():
        row = _captions.c.id == caption_id
        if (image_id, text) in known:
            connection.execute(sa.delete(_captions).where(row))
        else:
            connection.execute(sa.update(_captions).where(row).values(file_id=newer))
    connection.execute(sa.delete(_files).where(_files.c.id == older))
