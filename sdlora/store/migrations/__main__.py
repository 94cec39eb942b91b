"""Command that writes the migration from the newest revision to the tables in `tables.py`.

python -m sdlora.store.migrations "what changes"
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from sdlora.store.database import open_database

if __name__ == "__main__":
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    revisions = list(ScriptDirectory.from_config(config).walk_revisions())
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(Path(folder) / "images.db")
        with database.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.revision(config, sys.argv[1], autogenerate=True, rev_id=f"r{len(revisions) + 1:04d}")
