"""Image grids for people: rows are prompts, columns are contestants."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_ENLARGED_SIDE_PX = 128  # small images are enlarged by whole factors, so their pixels stay crisp
_GAP_PX = 10
_HEAD_HEIGHT_PX = 36
_CAPTION_WIDTH_PX = 190
_INK, _MUTED, _PAPER, _FRAME = (28, 30, 36), (104, 109, 120), (255, 255, 255), (222, 225, 231)


def draw_grid(
    heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Image.Image]]], rows_per_line: int = 1
) -> Image.Image:
    """Draw captioned rows of equally large square images under column heads.

    Args:
        heads: one per column.
        rows: (caption, one image per column).
        rows_per_line: number of rows side by side, so that many rows of few columns fit on a screen.

    Raises:
        ValueError: no rows, or a row without one image per head.
    """
    if not rows or any(len(images) != len(heads) for _, images in rows):
        raise ValueError(f"Every row needs {len(heads)} images, got {[len(images) for _, images in rows]}.")
    side = rows[0][1][0].width
    cell = side * max(1, _ENLARGED_SIDE_PX // side)
    font, bold = ImageFont.load_default(14), ImageFont.load_default(15)
    width = _CAPTION_WIDTH_PX + len(heads) * (cell + _GAP_PX) + _GAP_PX
    height = _HEAD_HEIGHT_PX + -(-len(rows) // rows_per_line) * (cell + _GAP_PX)
    sheet = Image.new("RGB", (width * min(rows_per_line, len(rows)), height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for block in range(min(rows_per_line, len(rows))):
        for column, head in enumerate(heads):
            left = block * width + _CAPTION_WIDTH_PX + _GAP_PX + column * (cell + _GAP_PX)
            draw.text((left + cell / 2, _HEAD_HEIGHT_PX / 2), head, _INK, bold, anchor="mm")
    for index, (caption, images) in enumerate(rows):
        block_left = index % rows_per_line * width
        top = _HEAD_HEIGHT_PX + index // rows_per_line * (cell + _GAP_PX)
        text = wrap(caption, font, _CAPTION_WIDTH_PX - 2 * _GAP_PX, lines=max(1, cell // 20))
        draw.multiline_text((block_left + _GAP_PX + 4, top + cell / 2), text, _MUTED, font, anchor="lm", spacing=4)
        for column, image in enumerate(images):
            left = block_left + _CAPTION_WIDTH_PX + _GAP_PX + column * (cell + _GAP_PX)
            sheet.paste(image.convert("RGB").resize((cell, cell), Image.Resampling.NEAREST), (left, top))
            draw.rectangle((left - 1, top - 1, left + cell, top + cell), outline=_FRAME)
    return sheet


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int, lines: int) -> str:
    """Wrap text to lines of at most `width_px`; text beyond `lines` lines ends in an ellipsis."""
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
