"""Emoji image folders: the training images of the base model, and the images of the demo.

    python -m sdlora.assets.emoji base OUT_DIR    # five colour styles, for `sdlora pretrain`
    python -m sdlora.assets.emoji demo OUT_DIR    # one black-on-white style, for `sdlora demo`

The drawings come from public npm packages. `npm pack` downloads them, so Node.js is needed. resvg renders them
(`pip install sdlora[assets]`). Every folder of images follows the Hugging Face `imagefolder` convention: PNG files and
one `metadata.jsonl` with `file_name`, `text`, `licence` and `source` per image. Base and demo share no drawing, so the
demo's style is new to the base model.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdlora.assets.demo_images import write_demo_folder

IMAGE_SIDE_PX = 64
SUBJECTS_PACKAGE = "emojibase-data@17.0.0"
HIGH_CONTRAST_PACKAGE = "fluentui-emoji@1.3.0"


@dataclass(frozen=True)
class Style:
    """Set of colour drawings: the npm package, the word for the style in captions, and the licence."""

    package: str
    word: str
    licence: str


COLOUR_STYLES = (
    Style("@iconify-json/noto@1.2.9", "noto", "Apache-2.0 (Google Noto Emoji)"),
    Style("@iconify-json/noto-v1@1.2.5", "blob", "Apache-2.0 (Google Noto Emoji, first design)"),
    Style("@iconify-json/twemoji@1.2.5", "twemoji", "CC-BY-4.0 (Twitter Emoji)"),
    Style("@iconify-json/fxemoji@1.2.2", "firefox", "Apache-2.0 (Mozilla FxEmojis)"),
    Style("@iconify-json/emojione@1.2.3", "emojitwo", "CC-BY-4.0 (EmojiTwo)"),
)

# Unicode's subgroups that the base model covers, and the word for each in captions.
CATEGORY_WORDS = (
    (re.compile(r"cat-face|monkey-face"), "animal face"),
    (re.compile(r"face-"), "face"),
    (re.compile(r"heart"), "heart"),
    (re.compile(r"emotion"), "symbol"),
    (re.compile(r"animal-"), "animal"),
    (re.compile(r"plant-"), "plant"),
    (re.compile(r"food-fruit"), "fruit"),
    (re.compile(r"food-vegetable"), "vegetable"),
    (re.compile(r"food-"), "food"),
    (re.compile(r"drink"), "drink"),
    (re.compile(r"dishware"), "dishware"),
    (re.compile(r"transport-(ground|water|air)"), "transport"),
)


@dataclass(frozen=True)
class Subject:
    """Subject of a drawing: its name in words ("red apple"), a file-name slug and a category word."""

    name: str
    slug: str
    category: str


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in {"base", "demo"}:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(arguments[1])
    count = write_base_images(folder) if arguments[0] == "base" else write_demo_images(folder)
    print(f"{count} images in {folder}")
    return 0


def write_base_images(folder: Path) -> int:
    """Draw every subject in every colour style that has it, and return the number of images."""
    subjects = read_subjects()
    rows: list[dict[str, object]] = []
    for style in COLOUR_STYLES:
        drawings = read_iconify(style.package)
        for subject in subjects:
            svg = drawings.get(subject.slug.replace("-", ""))
            if svg is None:
                continue
            name = f"{style.word}/{subject.slug}.png"
            _write(folder / name, render(svg))
            captions = [
                f"a {style.word} emoji of {subject.name}, {subject.category}",
                f"an emoji of {subject.name}, {subject.category}",
                f"a {style.word} emoji of {subject.name}",
                f"an emoji of {subject.name}",
            ]
            rows.append({"file_name": name, "text": captions, "licence": style.licence, "source": style.package})
    _write_metadata(folder, rows)
    return len(rows)


def write_demo_images(folder: Path) -> int:
    """Draw every subject in Fluent's high-contrast style (black on white), and return the number of drawings.

    `sdlora.assets.demo_images` sorts the drawings into batches and adds the bad files.
    """
    files = dict(npm_files(HIGH_CONTRAST_PACKAGE))
    rows, contents = [], {}
    for subject in read_subjects():
        svg = files.get(f"icons/high-contrast/{subject.slug}.svg")
        if svg is None:
            continue
        name = f"{subject.slug}.png"
        contents[name] = render(svg.decode())
        rows.append(
            {
                "file_name": name,
                "text": f"an emoji of {subject.name}, {subject.category}",
                "licence": "MIT (Microsoft Fluent Emoji)",
                "source": HIGH_CONTRAST_PACKAGE,
            }
        )
    # The package has only its author's copyright line; the drawings are Microsoft's, under the same licence.
    licence = files["LICENSE"].decode()
    licence = licence.replace("Copyright (c)", "Copyright (c) Microsoft Corporation\nCopyright (c)", 1)
    write_demo_folder(folder, rows, contents, licence)
    return len(rows)


def read_subjects() -> list[Subject]:
    """Read the emoji of the covered subgroups with their Unicode names, without skin-tone variants."""
    files = dict(npm_files(SUBJECTS_PACKAGE))
    subgroups = json.loads(files["meta/groups.json"])["subgroups"]
    subjects = []
    for emoji in json.loads(files["en/data.json"]):
        subgroup = subgroups.get(str(emoji.get("subgroup")), "")
        category = next((word for pattern, word in CATEGORY_WORDS if pattern.match(subgroup)), None)
        if category is not None:
            name = re.sub(r"[’“”:]", "", emoji["label"].lower())
            subjects.append(Subject(name, slugify(name), category))
    return subjects


def slugify(name: str) -> str:
    ascii_name = name.replace("ñ", "n").replace("é", "e")
    return re.sub(r"[^a-z0-9]+", "-", ascii_name).strip("-")


def read_iconify(package: str) -> dict[str, str]:
    """Read the SVG text of each drawing of an Iconify package, by name without hyphens, on which styles differ."""
    icons = json.loads(dict(npm_files(package))["icons.json"])
    default_side = icons.get("width", 16)

    def svg(icon: dict[str, object]) -> str:
        width, height = icon.get("width", default_side), icon.get("height", icons.get("height", default_side))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
        )

    drawings = {name.replace("-", ""): svg(icon) for name, icon in icons["icons"].items()}
    for alias, target in icons.get("aliases", {}).items():
        parent = icons["icons"].get(target["parent"])
        if parent is not None:
            drawings.setdefault(alias.replace("-", ""), svg(parent))
    return drawings


def npm_files(package: str) -> Iterator[tuple[str, bytes]]:
    """Yield (path, bytes) of the files of an npm package, through the user's own npm client and cache."""
    cache = Path.cwd() / ".npm-packages"
    cache.mkdir(exist_ok=True)
    archive = cache / (re.sub(r"^@", "", package).replace("/", "-").replace("@", "-") + ".tgz")
    if not archive.exists():
        subprocess.run(
            ["npm", "pack", "--silent", "--pack-destination", str(cache), package],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    with tarfile.open(archive) as tar:
        for member in tar:
            handle = tar.extractfile(member) if member.isfile() else None
            if handle is not None:
                yield member.name.partition("/")[2], handle.read()


def render(svg: str) -> bytes:
    """Render a drawing to PNG bytes, IMAGE_SIDE_PX square, on white."""
    import resvg_py
    from PIL import Image

    # The drawing is rendered at four times the size and reduced, because resvg's edges at 64 px are too hard.
    png = resvg_py.svg_to_bytes(svg_string=svg, width=4 * IMAGE_SIDE_PX, height=4 * IMAGE_SIDE_PX)
    drawing = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    canvas = Image.new("RGBA", drawing.size, "white")
    canvas.alpha_composite(drawing)
    small = canvas.convert("RGB").resize((IMAGE_SIDE_PX, IMAGE_SIDE_PX), Image.Resampling.BOX)
    out = io.BytesIO()
    small.save(out, "PNG", optimize=True)
    return out.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _write_metadata(folder: Path, rows: list[dict[str, object]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
