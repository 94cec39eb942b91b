from __future__ import annotations

from tests.stores import dataset, empty_database, location, migrated, on_servers, postgres, s3, store

__all__ = ["dataset", "empty_database", "location", "migrated", "on_servers", "postgres", "s3", "store"]
