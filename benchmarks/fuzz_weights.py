"""Fuzzing of weights' files: headers and metadata of adapters, `adapter.json`, and the JSON files of base models.

python benchmarks/fuzz_weights.py TARGET --minutes 10 [--seed 0] [--keep FOLDER]

Each case is a valid file with a few changes (`tests/foreign.py`), drawn by hypothesis from a seed. A case fails if an
error is not sdlora's own, if it takes more than `--seconds` of the processor, or if the process grows by more than
`--megabytes`. The first case of each kind of failure is printed, and its files are kept in `--keep`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

from sdlora.core.errors import SdloraError
from sdlora.core.files import file_sha256, json_digest
from sdlora.core.refs import BaseModelRef
from sdlora.lora.attach import attach_lora
from sdlora.lora.check import check_weights
from sdlora.lora.config import LoraConfig
from sdlora.lora.formats.inspect import inspect_adapter
from sdlora.lora.load import open_adapter
from sdlora.lora.manifest import AdapterOrigin
from sdlora.lora.save import save_adapter
from sdlora.models import parts
from sdlora.models.config import BaseModelConfig
from sdlora.models.files.sources import load_base_model
from sdlora.models.stable_diffusion import StableDiffusion
from tests.foreign import consistent_file, json_text, tensor_file
from tests.tiny import tiny_base_model

ROUND = 50  # cases of one seed; the time is looked at between seeds
_BASE_FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/tokenizer.json",
)


class Failed(Exception):
    """A case that broke the oracle."""


class Workshop:
    """Valid files, and a folder in which each case is written."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.folder = folder
        self.base_folder = tiny_base_model(folder / "base")
        self.base = load_base_model(BaseModelConfig(source=str(self.base_folder)), folder / "home")
        self.adapters = [self._adapter(method) for method in ("lora", "dora", "loha", "lokr")]
        self.case = folder / "case"

    def _adapter(self, method: str) -> Path:
        config = LoraConfig.model_validate({"method": method, "rank": 2, "targets": "attention"}).filled()
        denoiser = attach_lora(parts.load_denoiser(self.base), config)
        origin = AdapterOrigin("style", "5" * 64, "6" * 64, "epsilon", 64, captions=("a cat, flat",))
        return save_adapter(self.folder / method, denoiser, config, self.base, origin).folder

    def headers(self, data: st.DataObject) -> Callable[[], object]:
        """A file of an adapter, as a file of strangers and in its folder."""
        source = data.draw(st.sampled_from(self.adapters))
        folder = shutil.copytree(source, self.case)
        path = folder / data.draw(st.sampled_from(["style.safetensors", "pytorch_lora_weights.safetensors"]))
        content = path.read_bytes()
        path.write_bytes(data.draw(tensor_file(content) | consistent_file(content)))
        if data.draw(st.booleans()):
            (folder / "adapter.json").unlink()
            return lambda: inspect_adapter(path)
        _make_consistent(folder)
        return lambda: (_first(inspect_adapter, path), _first(open_adapter, folder, self.base))

    def metadata(self, data: st.DataObject) -> Callable[[], object]:
        """The metadata's own JSON, the manifest and the model card."""
        folder = shutil.copytree(data.draw(st.sampled_from(self.adapters)), self.case)
        manifest = folder / "adapter.json"
        match data.draw(st.integers(0, 2)):
            case 0:
                entries = json.loads(manifest.read_text())
                manifest.write_bytes(data.draw(json_text(entries)))
                with contextlib.suppress(ValueError, RecursionError):  # broken as JSON
                    _make_consistent(folder)
            case 1:
                path = folder / "pytorch_lora_weights.safetensors"
                _change_metadata(path, "lora_adapter_metadata", data)
                _make_consistent(folder)
            case _:
                manifest.unlink()
                _change_metadata(folder / "style.safetensors", "ss_tag_frequency", data)
                (folder / "pytorch_lora_weights.safetensors").unlink()
                card = data.draw(json_text({"tags": ["lora"], "instance_prompt": "a", "base_model": "b"}))
                (folder / "README.md").write_bytes(b"---\n" + card + b"\n---\n")
                return lambda: inspect_adapter(folder)
        return lambda: (_first(inspect_adapter, folder), _first(self._use, folder))

    def _use(self, folder: Path) -> None:
        adapter = open_adapter(folder, self.base)
        check_weights(adapter, self.base)
        StableDiffusion.from_ref(self.base, adapter)

    def base_models(self, data: st.DataObject) -> Callable[[], object]:
        """One of the base's JSON files."""
        folder = shutil.copytree(self.base_folder, self.case)
        path = folder / data.draw(st.sampled_from(_BASE_FILES))
        path.write_bytes(data.draw(json_text(json.loads(path.read_text()))))

        def use() -> None:
            ref: BaseModelRef = load_base_model(BaseModelConfig(source=str(folder)), self.folder / "home")
            StableDiffusion.from_ref(ref)
            parts.denoiser_outline(ref)

        return use


TARGETS = {"headers": Workshop.headers, "metadata": Workshop.metadata, "bases": Workshop.base_models}


def _first(use: Callable[..., object], *arguments: Any) -> SdloraError | None:
    try:
        use(*arguments)
    except SdloraError as error:
        return error
    return None


def _make_consistent(folder: Path) -> None:
    """Write the digests of the files into the manifest, so that the checks after the digests are reached."""
    path = folder / "adapter.json"
    manifest = json.loads(path.read_text())
    if not isinstance(manifest, dict):
        return
    manifest |= {
        "digest": file_sha256(folder / "pytorch_lora_weights.safetensors"),
        "kohya_digest": file_sha256(folder / "style.safetensors"),
    }
    manifest.pop("own_digest", None)
    path.write_text(json.dumps(manifest | {"own_digest": json_digest(manifest)}))


def _change_metadata(path: Path, key: str, data: st.DataObject) -> None:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    text = data.draw(json_text(json.loads(header["__metadata__"][key]))).decode("utf-8", "replace")
    header["__metadata__"][key] = text
    new = json.dumps(header).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + content[8 + size :])


def memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def run(use: Callable[[], object], seconds: float, megabytes: float) -> str:
    """Run one case and return its outcome.

    Raises:
        Failed: the oracle is broken.
    """
    Path("/proc/self/clear_refs").write_text("5")
    before, began, outcome = memory("VmRSS"), time.process_time(), "read"  # others may load the machine
    try:
        use()
    except SdloraError as error:
        outcome = f"refused ({type(error).__name__})"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise Failed(f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}") from error
    took, grown = time.process_time() - began, (memory("VmHWM") - before) / 2**20
    if took > seconds or grown > megabytes:
        raise Failed(f"{outcome} after {took:.1f} s and {grown:,.0f} MB")
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--megabytes", type=float, default=300)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # diffusers names every setting that it does not know
    outcomes: Counter[str] = Counter()
    failures: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        prepare = TARGETS[options.target]
        run(lambda: prepare_nothing(workshop), options.seconds, 10_000)
        end, number = time.monotonic() + 60 * options.minutes, options.seed

        def case(data: st.DataObject) -> None:
            shutil.rmtree(workshop.case, ignore_errors=True)
            use = prepare(workshop, data)
            try:
                outcomes[run(use, options.seconds, options.megabytes)] += 1
            except Failed as failure:
                outcomes["FAILED"] += 1
                name = str(failure).split(" after ", 1)[0]
                if name not in failures:
                    failures[name] = options.keep / f"{options.target}-{len(failures)}"
                    shutil.rmtree(failures[name], ignore_errors=True)
                    shutil.copytree(workshop.case, failures[name])
                    print(f"{failure}: {failures[name]}", flush=True)
                    traceback.print_exception(failure.__cause__, limit=-4)

        while time.monotonic() < end:
            checks = settings(
                max_examples=ROUND,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            seed(number)(checks(given(data=st.data())(case)))()
            number += 1
    rounds = number - options.seed
    print(json.dumps({"target": options.target, "cases": outcomes.total(), "seeds": rounds, **outcomes}, indent=1))
    sys.exit(1 if failures else 0)


def prepare_nothing(workshop: Workshop) -> None:
    """Import and load what every case needs, so that it does not count as growth."""
    StableDiffusion.from_ref(workshop.base)
    for folder in workshop.adapters:
        inspect_adapter(folder)
        StableDiffusion.from_ref(workshop.base, open_adapter(folder, workshop.base))


if __name__ == "__main__":
    main()
