"""Image grids for people: rows are prompts, columns are contestants."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_SCALE_TO_PX = 128  # small images are enlarged by whole factors, so their pixels stay crisp
_GAP = 10
_CAPTION_WIDTH = 190
_INK, _MUTED, _PAPER, _FRAME = (28, 30, 36), (104, 109, 120), (255, 255, 255), (222, 225, 231)


def draw_grid(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Image.Image]]], abreast: int = 1) -> Image.Image:
    """Draw captioned rows of equally large square images under column heads.

    Args:
        heads: one per column.
        rows: (caption, one image per column).
        abreast: how many rows stand side by side, so that many rows of few columns still fit on a screen.

    Raises:
        ValueError: no rows, or a row without one image per head.
    """
    if not rows or any(len(images) != len(heads) for _, images in rows):
        raise ValueError(f"Every row needs {len(heads)} images, got {[len(images) for _, images in rows]}.")
    side = rows[0][1][0].width
    cell = side * max(1, _SCALE_TO_PX // side)
    font, bold = ImageFont.load_default(14), ImageFont.load_default(15)
    head_height = 36
    width = _CAPTION_WIDTH + len(heads) * (cell + _GAP) + _GAP
    height = head_height + -(-len(rows) // abreast) * (cell + _GAP)
    sheet = Image.new("RGB", (width * min(abreast, len(rows)), height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for block in range(min(abreast, len(rows))):
        for column, head in enumerate(heads):
            left = block * width + _CAPTION_WIDTH + _GAP + column * (cell + _GAP)
            draw.text((left + cell / 2, head_height / 2), head, _INK, bold, anchor="mm")
    for index, (caption, images) in enumerate(rows):
        edge = index % abreast * width
        top = head_height + index // abreast * (cell + _GAP)
        text = wrap(caption, font, _CAPTION_WIDTH - 2 * _GAP, lines=max(1, cell // 20))
        draw.multiline_text((edge + _GAP + 4, top + cell / 2), text, _MUTED, font, anchor="lm", spacing=4)
        for column, image in enumerate(images):
            left = edge + _CAPTION_WIDTH + _GAP + column * (cell + _GAP)
            sheet.paste(image.convert("RGB").resize((cell, cell), Image.Resampling.NEAREST), (left, top))
            draw.rectangle((left - 1, top - 1, left + cell, top + cell), outline=_FRAME)
    return sheet


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int, lines: int) -> str:
    """Break words so that every line fits `width_px`; what does not fit into `lines` ends in an ellipsis."""
    wrapped: list[str] = []
    for word in text.split():
        longer = f"{wrapped[-1]} {word}" if wrapped else word
        if wrapped and font.getlength(longer) <= width_px:
            wrapped[-1] = longer
        else:
            wrapped.append(_shorten(word, font, width_px))
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], _shorten(f"{wrapped[lines - 1]}…", font, width_px)]
    return "\n".join(wrapped)


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    if font.getlength(text) <= width_px:
        return text
    stem = text.removesuffix("…")
    while stem and font.getlength(f"{stem}…") > width_px:
        stem = stem[:-1]
    return f"{stem}…"
