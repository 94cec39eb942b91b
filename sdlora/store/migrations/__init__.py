"""Alembic migrations of the image database, run by `sdlora.store.database.open_database`."""
