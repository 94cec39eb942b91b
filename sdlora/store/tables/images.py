"""Tables of images: what is kept once for each image, whatever number of datasets it is in."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.orm import Mapped, mapped_column

from sdlora.store.tables.base import Base, utc_now


class ImageTable(Base):
    """Image: its bytes, in whatever dataset it is."""

    __tablename__ = "images"

    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    byte_size: Mapped[int] = mapped_column(BigInteger)
    collected_at: Mapped[datetime] = mapped_column(default=utc_now)


class TakedownTable(Base):
    """Takedown of an image in every dataset: its bytes were removed for good, and collecting it is refused."""

    __tablename__ = "takedowns"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    why: Mapped[str]
    who: Mapped[str]
    made_at: Mapped[datetime] = mapped_column(default=utc_now)


class DecodingTable(Base):
    """Decoding of an image, on the background of its transparent parts. Datasets with one background share it."""

    __tablename__ = "decodings"
    __table_args__ = (Unique("image_id", "background"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    background: Mapped[str]  # empty if no background shows through; such a decoding is valid for every background
    decoded_as: Mapped[str]  # version of the decoder, and the background
    format: Mapped[str | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    problem: Mapped[str | None]  # reason why the image cannot be decoded
    fingerprint_id: Mapped[int | None] = mapped_column(ForeignKey("fingerprints.id"), index=True)


class ScoreTable(Base):
    """Score of a decoding by a check. It needs a decoded image; settings turn it into a ruling."""

    __tablename__ = "scores"

    decoding_id: Mapped[int] = mapped_column(ForeignKey("decodings.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    parameters: Mapped[str] = mapped_column(String(16), primary_key=True)  # digest of a model; empty without one
    score: Mapped[float]


class FingerprintTable(Base):
    """Fingerprint of pixels for the near-duplicate search. Images with identical pixels share a fingerprint."""

    __tablename__ = "fingerprints"
    # The index covers all columns of a search, so that the search does not read the thumbnails.
    __table_args__ = (Unique("pixels_sha256", "version"), Index(None, "version", "id", "hashes"))

    id: Mapped[int] = mapped_column(primary_key=True)
    pixels_sha256: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    hashes: Mapped[bytes] = mapped_column(LargeBinary)  # four hashes of 64 bits, big-endian
    aspect: Mapped[float]
    thumbnail: Mapped[bytes] = mapped_column(LargeBinary)


class SimilarPairTable(Base):
    """Pair of similar fingerprints, first_id < second_id. All fingerprints of one version have been compared."""

    __tablename__ = "similar_pairs"

    first_id: Mapped[int] = mapped_column(ForeignKey("fingerprints.id"), primary_key=True)
    second_id: Mapped[int] = mapped_column(ForeignKey("fingerprints.id"), primary_key=True, index=True)
    difference: Mapped[float] = mapped_column(index=True)
