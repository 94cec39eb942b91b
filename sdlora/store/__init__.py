"""The image database: what is known of every image, and its bytes, in one folder that can be moved."""

from sdlora.store.image_store import ImageStore
from sdlora.store.records import Caption, Counts, ImageRecord, Origin, Split, Verdict

__all__ = ["Caption", "Counts", "ImageRecord", "ImageStore", "Origin", "Split", "Verdict"]
