"""Record of one version as plain values, laid out by the report and the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sdlora.core.refs import ADAPTER_WEIGHTS, UNKNOWN_SNAPSHOT
from sdlora.lora.config import Method
from sdlora.lora.formats.compatibility import METHODS, misreadings, readers_of, support
from sdlora.models.families.layouts import LAYOUTS, FamilyName, Layout
from sdlora.records.adoption import Adoption
from sdlora.records.choice import Choice
from sdlora.records.decision import Answer, Decision
from sdlora.records.duel import Duel

DATA_PAGE = "data.html"
WAITING_VERDICTS: Mapping[Answer, str] = {
    "better": "Better, and waits for a person",
    "worse": "Worse, and waits for a person",
    "cannot tell": "The gate cannot tell, a person decides",
}
"""Verdict on a candidate that waits, by the gate's answer."""


@dataclass(frozen=True)
class Curve:
    """Line of the training chart: (step, loss) in step order."""

    name: str
    points: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class RejectedImage:
    """Rejected image with its reason; `content` holds its bytes, readable or not."""

    name: str
    reason: str
    content: bytes | None = None
    sha256: str = ""


@dataclass(frozen=True)
class DataSummary:
    """Summary of the data: counts, verdicts, licences, sources and captions."""

    train_count: int
    held_out_count: int
    verdicts: Mapping[str, int] = field(default_factory=dict)
    """Images by verdict, such as {"kept": 392, "rejected": 7}."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Rejected images by reason."""
    rejected: Sequence[RejectedImage] = ()
    licences: Mapping[str, int] = field(default_factory=dict)
    """Training images by licence, as stated by their sources."""
    sources: Mapping[str, int] = field(default_factory=dict)
    """Training images by source."""
    captions: Sequence[str] = ()
    """Captions of training images; their common pattern triggers the style."""


@dataclass(frozen=True)
class VersionRecord:
    """Version with its data, settings, curves, duel and decision."""

    name: str
    version: str
    created: datetime
    base_name: str
    duel: Duel
    decision: Decision
    duel_folder: Path
    """Folder of the images that `duel` names."""
    adapter_folder: Path
    """Folder of `pytorch_lora_weights.safetensors` and `<name>.safetensors`."""
    data: DataSummary
    family: FamilyName = "sd1"
    """Family of the base model."""
    curves: Sequence[Curve] = ()
    choice: Choice | None = None
    """Step of this adapter, with the evidence."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The resolved configuration, section by section."""
    samples: Path | None = None
    """Contact sheet of the samples drawn during training: prompts as rows, steps as columns."""
    code_version: str = ""
    data_page: Path | None = None
    """Data page of the snapshot; released with the version if it exists."""
    adoption: Adoption | None = None
    """File that the adapter was adopted from. Its training images are then unknown, and `data` describes the images
    that it was judged by."""
    is_champion: bool = False
    """True if the version was the champion before this decision, which is then a later one on it."""

    @property
    def verdict(self) -> str:
        """Decision in a few words."""
        if self.is_champion:
            return "Confirmed as champion" if self.decision.answer == "better" else "Not confirmed, but still champion"
        if self.decision.promote:
            return "Promoted to champion"
        if self.decision.waits:
            return WAITING_VERDICTS[self.decision.answer]
        return "Champion kept" if self.decision.champion_digest else "Not promoted"

    @property
    def consequence(self) -> str:
        """Consequence of the decision, for users of the adapter."""
        if self.is_champion and self.decision.answer != "better":
            return "This adapter stays the one in use. A person may choose another version."
        if self.decision.promote or self.is_champion:
            return "This adapter passed every check and is the one in use now."
        in_use = "The adapter in use stays" if self.decision.champion_digest else "No adapter is in use yet"
        if self.decision.waits:
            command = f"sdlora promote {self.name} --version {self.version}"
            return f"{in_use} until a person decides. To make this one the champion, type: {command}"
        doubt = " The gate cannot tell which of the two is better." if self.decision.answer == "cannot tell" else ""
        return f"{in_use}. This one is kept as a candidate with its evidence.{doubt}"

    @property
    def may_know_held_out_images(self) -> bool:
        """True if an adapter in the duel was adopted from a file, which may have learnt from the held-out images."""
        return UNKNOWN_SNAPSHOT in (self.duel.candidate_snapshot_digest, self.duel.champion_snapshot_digest)

    @property
    def prior_preservation(self) -> str:
        """Description of the prior preservation in a sentence; empty without it."""
        training = self.settings.get("training")
        if not isinstance(training, Mapping) or training.get("prior_weight") is None:
            return ""
        prompts = "; ".join(str(prompt) for prompt in training["prior_prompts"])
        return (
            f"During training, {training['prior_images']} images that the base model itself drew of “{prompts}” were "
            f"in the loss with weight {training['prior_weight']:g} (prior preservation). They preserve what the base "
            "knows of these prompts, and are not counted here."
        )

    @property
    def embedded_base(self) -> bool:
        """True if the base model is the small one that ships with sdlora."""
        return self.base_name == "embedded"

    @property
    def layout(self) -> Layout:
        """Layout of the base model."""
        return next(layout for layout in LAYOUTS if layout.name == self.family)

    @property
    def method_title(self) -> str:
        """Method of the adapter as papers spell it."""
        return METHODS[self._method]

    @property
    def diffusers_loads_it(self) -> bool:
        """Whether diffusers' own loader reads the adapter."""
        return support("diffusers", self._method, self.family) == "exact"

    @property
    def pipeline_code(self) -> str:
        """Python that makes `pipeline`, the stock diffusers pipeline with this adapter."""
        base = json.dumps(self.base_name if "/" in self.base_name else f"path/to/{self.base_name}")
        revision = f", revision={json.dumps(self._revision)}" if self._revision else ""
        if not self.diffusers_loads_it:
            source = '"embedded"' if self.embedded_base else base
            return (
                "from pathlib import Path\n\n"
                "from sdlora import StableDiffusion, load_base_model\n"
                "from sdlora.lora.load import open_adapter\n"
                "from sdlora.models.config import BaseModelConfig\n\n"
                f'base = load_base_model(BaseModelConfig(source={source}{revision}), Path(".sdlora"))\n'
                'model = StableDiffusion.from_ref(base, open_adapter(Path("path/to/this/folder")))\n'
                "pipeline = model.pipeline()"
            )
        name = self.layout.pipeline
        imported = f"from diffusers import {name}\n\n"
        if self.embedded_base:
            imported, base = f"import sdlora\n{imported}", 'f"{sdlora.__path__[0]}/assets/base"'
        return (
            f"{imported}pipeline = {name}.from_pretrained({base}{revision})\n"
            f'pipeline.load_lora_weights("path/to/this/folder", weight_name="{ADAPTER_WEIGHTS}")'
        )

    @property
    def single_file_readers(self) -> str:
        """Names of the tools that read `single_file` exactly."""
        return ", ".join(readers_of(self._method, self.family, self._text, "kohya"))

    @property
    def misreadings(self) -> list[str]:
        """Sentences about the tools that misread `single_file` without an error, with the remedies."""
        return misreadings(self._method, self.family, self._text, "kohya")

    @property
    def _method(self) -> Method:
        method: Method = self._section("lora").get("method", "lora")
        return method

    @property
    def _text(self) -> bool:
        return self._section("lora").get("text_encoder_rank") is not None

    @property
    def _revision(self) -> str | None:
        return self._section("base_model").get("revision") if "/" in self.base_name else None

    def _section(self, name: str) -> Mapping[str, Any]:
        section = self.settings.get(name)
        return section if isinstance(section, Mapping) else {}

    @property
    def single_file(self) -> str:
        """File name for ComfyUI and AUTOMATIC1111."""
        return f"{self.name}.safetensors"


def caption_pattern(captions: Sequence[str], share: float = 0.8) -> str | None:
    """Find the words that at least `share` of the captions begin with, such as "an emoji of"; None without any."""
    words = [caption.lower().split() for caption in captions]
    prefix: list[str] = []
    while words:
        next_words = [row[len(prefix)] for row in words if len(row) > len(prefix) and row[: len(prefix)] == prefix]
        if not next_words:
            break
        commonest = max(set(next_words), key=lambda word: (next_words.count(word), word))
        if next_words.count(commonest) < share * len(words):
            break
        prefix.append(commonest)
    return " ".join(prefix) or None
