"""Settings of collecting, cleaning and freezing images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sdlora.core.config_base import MAX_COUNT, MAX_NAME_CHARS, NAME_PATTERN, SettingsSection

MAX_DIFFERENCE = 60.0
"""Largest recorded difference of a pair, in grey levels, and so the upper limit of every threshold."""

WeightSource = Literal["repeats", "ratings"]

BACKGROUND = "^(white|black|grey|#[0-9a-f]{6})$"


class DataConfig(SettingsSection):
    """Settings of the `data` section: sources, cleaning and the split.

    After a change of a threshold, images are decided again from recorded scores, without decoding.
    """

    sources: tuple[str, ...] = Field(
        (), description="folders, archives, lists of URLs, datasets, addresses such as s3://bucket/folder"
    )
    dataset: str | None = Field(
        None,
        pattern=NAME_PATTERN,
        max_length=MAX_NAME_CHARS,
        description="set of images that the style learns from and that its sources fill; empty: the style's name",
    )
    mirror_sources: bool = Field(
        False, description="an image that is in its source no longer leaves the dataset, until the source has it again"
    )
    max_file_bytes: int = Field(256 * 2**20, ge=1, le=2**40, description="larger files are passed over when collecting")
    max_source_memory_bytes: int = Field(
        512 * 2**20,
        ge=2**20,
        le=2**40,
        description="memory for what a source lists and describes: names, captions, packed masks",
    )
    url_workers: int = Field(32, ge=1, le=512, description="images fetched from the web at the same time")
    url_per_host: int = Field(4, ge=1, le=512, description="of these, from one host")
    url_timeout_seconds: float = Field(20.0, gt=0, le=86_400, description="how long a host may be silent")
    url_total_seconds: float = Field(
        300.0,
        gt=0,
        le=86_400,
        description="how long one image from the web or an object store may take, from first to last",
    )
    url_retries: int = Field(
        3, ge=0, le=100, description="tries after the first, where a host fails in a way that may pass"
    )
    recheck_urls: bool = Field(False, description="ask hosts whether images that were fetched before have changed")
    respect_noai: bool = Field(True, description="pass over images whose host opts out of training (X-Robots-Tag)")
    allow_private_addresses: bool = Field(
        False, description="fetch from this machine and its network, too (never link-local); not for lists by others"
    )
    max_archive_members: int = Field(
        1_000_000, ge=1, le=MAX_COUNT, description="an archive's members after these are passed over"
    )
    max_archive_ratio: float = Field(
        500.0, ge=2, le=1e6, description="what unpacks to so many times its size is a bomb and passed over"
    )

    max_pixels: int = Field(
        64_000_000, ge=1, le=178_000_000, description="images whose header promises more are never decoded"
    )
    background: str = Field(
        "white", pattern=BACKGROUND, description="what transparent parts lie on: white, black, grey or #rrggbb"
    )
    min_side_px: int = Field(32, ge=1, le=100_000, description="the shorter side an image needs")
    allow_animated: bool = Field(False, description="keep the first frame of animated images")
    min_contrast: float = Field(
        4.0, ge=0, le=128, description="standard deviation of brightness below which it is blank"
    )
    min_aspect_ratio: float = Field(0.35, ge=0, le=1, description="the least the shorter side may be of the longer one")
    # Scores as in cleanvision; 0 turns a check off. Some thresholds are lower than cleanvision's, which would reject
    # drawings on white: 3 % of the demo's icons have information below 0.3, and fine lines on white count as light.
    dark_threshold: float = Field(
        0.32, ge=0, le=1, description="dark if 99 % of the pixels are less bright than this (0 black, 1 white)"
    )
    light_threshold: float = Field(
        0.0, ge=0, le=1, description="light if 95 % of the pixels are nearer to white; 0.05 suits photographs only"
    )
    blurry_threshold: float = Field(0.29, ge=0, le=1, description="sharpness, 0 to 1, below which it is blurry")
    low_information_threshold: float = Field(
        0.16, ge=0, le=1, description="entropy below which it is one plain colour, 0 to 1; cleanvision has 0.3"
    )
    # Checks on records. Defaults are lenient, because styles are learnt without captions too.
    require_captions: bool = Field(False, description="reject images without a caption")
    min_caption_chars: int = Field(
        0, ge=0, le=MAX_COUNT, description="characters the longest caption of an image needs; 0: any"
    )
    allow_garbled_captions: bool = Field(False, description="keep captions that were read with the wrong encoding")
    max_images_per_caption: int = Field(
        0,
        ge=0,
        le=MAX_COUNT,
        description="reject images whose captions are all on more images than this; 0: any number",
    )
    allowed_licences: tuple[str, ...] = Field(
        (), description="only images under these licences, such as CC0* or CC-BY-4.0*, in any case; none: any licence"
    )
    allow_unfit_masks: bool = Field(
        False, description="keep images whose mask (name-masklabel.png, name.mask.png) is damaged, without the mask"
    )
    unsafe_model: str = Field(
        "", description="image classifier for unsafe content: a folder, or owner/name@commit of the hub; none: no check"
    )
    unsafe_labels: tuple[str, ...] = Field(("nsfw",), min_length=1, description="labels of the classifier that count")
    unsafe_threshold: float = Field(0.5, ge=0, le=1, description="probability of those labels from which it is unsafe")
    caption_model: str = Field(
        "", description="model that writes captions (sdlora images caption --auto): a folder, or owner/name@commit"
    )
    near_duplicate_difference: float = Field(
        22.0, ge=0, le=MAX_DIFFERENCE, description="two images that differ less, in grey levels of 255, are copies"
    )
    suspect_difference: float = Field(
        30.0, ge=0, le=MAX_DIFFERENCE, description="two images that differ less never lie on both sides of the split"
    )

    held_out_fraction: float = Field(0.25, gt=0, lt=1, description="share of new images kept from training")
    weight_by: tuple[WeightSource, ...] = Field(
        ("repeats", "ratings"),
        description="what lets an epoch show some training images more often: repeats (folders such as 10_name), "
        "ratings (each star above three doubles, below it halves); none: all alike",
    )
    min_train_images: int = Field(8, ge=1, le=MAX_COUNT, description="a snapshot with fewer training images is refused")
    min_held_out_images: int = Field(
        4, ge=1, le=MAX_COUNT, description="a snapshot with fewer held-out images is refused"
    )

    @model_validator(mode="after")
    def _suspects_include_copies(self) -> DataConfig:
        if self.suspect_difference < self.near_duplicate_difference:
            raise ValueError(
                f"suspect_difference = {self.suspect_difference} must be at least "
                f"near_duplicate_difference = {self.near_duplicate_difference}"
            )
        return self


class ResolvedData(DataConfig):
    """Settings of the `data` section with the dataset filled in."""

    dataset: str


def resolve_data(config: DataConfig, name: str) -> ResolvedData:
    """Fill the empty dataset with the name of the style.

    Args:
        name: name of the style or of the base model that learns from the images.
    """
    return ResolvedData(**{**dict(config), "dataset": config.dataset or name})
