"""Tables of snapshots, of the versions trained on them, and of the decisions on versions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, String
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.orm import Mapped, mapped_column

from sdlora.store.tables.base import Base, utc_now


class SnapshotTable(Base):
    """Frozen list of (image, captions, split) of a dataset, identified by the digest of its rows."""

    __tablename__ = "snapshots"
    __table_args__ = (Unique("dataset_id", "digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    digest: Mapped[str] = mapped_column(String(64))
    parent_id: Mapped[int | None] = mapped_column(
        ForeignKey("snapshots.id")
    )  # the newest snapshot of the dataset when this one was made
    made_at: Mapped[datetime] = mapped_column(default=utc_now)
    train_count: Mapped[int]
    held_out_count: Mapped[int]


class SnapshotImageTable(Base):
    """Row of a snapshot, with the captions of that time."""

    __tablename__ = "snapshot_images"

    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True, index=True)
    split: Mapped[str]
    captions: Mapped[list[str]] = mapped_column(JSON)
    background: Mapped[str | None]  # background of a transparent image, if it is not white
    mask: Mapped[str | None] = mapped_column(String(64))  # SHA-256 of the mask
    weight: Mapped[float | None]  # frequency in an epoch, relative to the other images; None: 1


class VersionTable(Base):
    """Published adapter and the snapshot it was trained on; it links images to versions and back.

    The images of an adapter that was adopted from a file are unknown: it has no snapshot.
    """

    __tablename__ = "versions"
    __table_args__ = (Unique("name", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    number: Mapped[int]
    adapter_digest: Mapped[str] = mapped_column(String(64))
    snapshot_id: Mapped[int | None] = mapped_column(ForeignKey("snapshots.id"), index=True)
    recorded_at: Mapped[datetime] = mapped_column(default=utc_now)


class ChampionHistoryTable(Base):
    """Decision on a version, or change of a style's champion by a person. Rows are added and never changed.

    MLflow's alias `champion` is set from the newest row. The champion stayed if `from_version` equals `to_version`.
    """

    __tablename__ = "champion_history"
    __table_args__ = (Unique("style", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    style: Mapped[str]
    number: Mapped[int]  # position in the history of the style, from 1
    kind: Mapped[str]
    answer: Mapped[str | None]  # answer of the gate; None if the gate decided nothing
    version: Mapped[int]  # number in the registry of the version that the decision is about
    from_version: Mapped[int | None]  # number of the previous champion; None without one
    to_version: Mapped[int | None]  # number of the new champion
    who: Mapped[str]
    why: Mapped[str]
    decided_at: Mapped[datetime] = mapped_column(default=utc_now)
    adapter_digest: Mapped[str] = mapped_column(String(64))
    snapshot_digest: Mapped[str | None] = mapped_column(String(64))
    run_digest: Mapped[str | None] = mapped_column(String(64))
    duel_digest: Mapped[str | None] = mapped_column(String(64))  # None without a duel, like decision_digest
    # A person's decision has the digest of the gate's decision on the same version.
    decision_digest: Mapped[str | None] = mapped_column(String(64))
    train_count: Mapped[int | None]
    metric: Mapped[str | None]  # name of the leading metric at the time
    score: Mapped[float | None]  # value of the metric for the version
    base_score: Mapped[float | None]  # value of the metric for the base model
