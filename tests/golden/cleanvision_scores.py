"""Write `cleanvision_scores.json`. Run from the repository in an environment with cleanvision 0.3.7:

python tests/golden/cleanvision_scores.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from cleanvision import Imagelab

HERE = Path(__file__).parent
SCORES = ("dark_score", "light_score", "blurry_score", "low_information_score", "odd_aspect_ratio_score")


def main() -> None:
    sys.path.insert(0, str(HERE))
    from cleanvision_pictures import pictures

    with tempfile.TemporaryDirectory() as folder:
        for name, picture in pictures().items():
            picture.save(Path(folder) / f"{name}.png")
        lab = Imagelab(data_path=folder)
        lab.find_issues(n_jobs=1, verbose=False)
        found = {Path(path).stem: {name: float(row[name]) for name in SCORES} for path, row in lab.issues.iterrows()}
    (HERE / "cleanvision_scores.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
