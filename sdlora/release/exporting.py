"""Export for other tools: an adapter in another precision or format, or the merged model theta' = theta + delta theta.

Every file is read back the way other tools read it, and compared, before it takes its final name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from sdlora.core.errors import StorageError, WeightsError
from sdlora.core.files import written_aside
from sdlora.core.quoting import quoted
from sdlora.core.refs import ADAPTER_WEIGHTS, AdapterRef, BaseModelRef
from sdlora.lora.check import check_files_of
from sdlora.lora.formats.compatibility import NOTE_FILE, note
from sdlora.lora.formats.kohya import write_with_hashes
from sdlora.lora.formats.reading import Reader, change_of, group_by_layer
from sdlora.lora.formats.tensor_file import write_tensor_file
from sdlora.lora.manifest import AdapterManifest
from sdlora.models import parts
from sdlora.models.adapter_check import all_finite
from sdlora.models.families import family_of
from sdlora.models.families.base import Family
from sdlora.models.families.layouts import FamilyName
from sdlora.models.files.original_layout import original_tensors
from sdlora.models.stable_diffusion import StableDiffusion, check_adapter
from sdlora.release.config import DtypeName
from sdlora.release.peft_folder import write_peft_files

DTYPES: dict[DtypeName, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Rounding error of the precision, half of the last bit of the mantissa, relative to a tensor's largest entry.
_ROUNDING: dict[DtypeName, float] = {"fp32": 1e-6, "fp16": 2**-10, "bf16": 2**-7}
_IMPLEMENTATIONS: dict[FamilyName, str] = {
    "sd1": "ldm",
    "sd2": "ldm",
    "sdxl": "sgm",
    "sd3": "https://github.com/Stability-AI/sd3.5",
    "flux": "https://github.com/black-forest-labs/flux",
}
_SUFFIX = ".safetensors"


def export_adapter(
    adapter: AdapterRef,
    out: Path,
    dtype: DtypeName = "fp32",
    reader: Reader = "lycoris",
    base: BaseModelRef | None = None,
) -> Path:
    """Write an adapter for another tool.

    Args:
        adapter: the adapter.
        out: a `.safetensors` file in kohya's format, or a new folder with diffusers' file and peft's.
        dtype: precision of the tensors.
        reader: tool whose rule a DoRA's `dora_scale` follows; ComfyUI divides by other norms than LyCORIS.
        base: the base model; required for a DoRA for ComfyUI. Without it, the adapter's layers are compared with its
            own settings only.

    Raises:
        WeightsError: the adapter's files are damaged or wrong, a file read back differs from the adapter, or the base
            is missing or another one.
        StorageError: `out` exists already or cannot be written.
    """
    with _new_file(out) as partial:
        if out.suffix == _SUFFIX:
            write_single_file(adapter, partial, dtype, reader, base)
        else:
            _write_folder(adapter, partial, dtype, base)
    return out


def write_single_file(
    adapter: AdapterRef,
    path: Path,
    dtype: DtypeName,
    reader: Reader,
    base: BaseModelRef | None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write an adapter in kohya's format; see `export_adapter`.

    Args:
        notes: further entries of the file's metadata.
    """
    source = adapter.folder / _checked(adapter, base).kohya_file
    tensors, metadata = _read(source)
    if reader == "comfyui" and any(key.endswith(".dora_scale") for key in tensors):
        tensors, metadata = _for_comfyui(tensors, adapter, base), {**metadata, "sdlora.dora_rule": "comfyui"}
    # Only an export has a date: equal adapters are files of equal bytes.
    made = datetime.fromtimestamp(int(source.stat().st_mtime), UTC)
    metadata = {**metadata, "modelspec.date": made.isoformat(), **(notes or {})}
    write_with_hashes(path, {key: tensor.to(DTYPES[dtype]) for key, tensor in tensors.items()}, metadata)
    _require_same_changes(path, tensors, dtype)


def _write_folder(adapter: AdapterRef, folder: Path, dtype: DtypeName, base: BaseModelRef | None) -> None:
    _checked(adapter, base)
    tensors, metadata = _read(adapter.folder / ADAPTER_WEIGHTS)
    rounded = {key: tensor.to(DTYPES[dtype]) for key, tensor in tensors.items()}
    folder.mkdir(parents=True)
    write_tensor_file(folder / ADAPTER_WEIGHTS, rounded, metadata)
    _require_tensors(folder / ADAPTER_WEIGHTS, rounded)
    write_peft_files(folder, rounded, metadata)
    (folder / NOTE_FILE).write_text(note(None))


def _checked(adapter: AdapterRef, base: BaseModelRef | None) -> AdapterManifest:
    if base is not None:
        check_adapter(adapter, base)
    return check_files_of(adapter, base)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def export_model(base: BaseModelRef, adapter: AdapterRef | None, out: Path, dtype: DtypeName = "fp32") -> Path:
    """Write the model with the adapter merged into its weights.

    Args:
        base: the model; its digest is checked.
        adapter: the adapter to merge; None for the base model itself.
        out: a new diffusers folder, or a `.safetensors` file in the original layout.
        dtype: precision of the weights.

    Raises:
        WeightsError: the adapter belongs to another base, or the model read back differs.
        StorageError: `out` exists already or cannot be written.
    """
    family = family_of(base.folder)
    model = StableDiffusion.from_ref(base, adapter, device="cpu", precision="fp32")
    pipeline = model.pipeline()
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    for name, module in modules.items():
        _require_finite(module, name, base, adapter)
    states = {name: module.to(DTYPES[dtype]).state_dict() for name, module in modules.items()}
    for name, state in states.items():
        wrong = [key for key, tensor in state.items() if not all_finite(tensor)]
        if wrong:
            raise WeightsError(
                f"{len(wrong)} tensors of {name} are not finite in {dtype}, such as {quoted(wrong[0])}. Nothing was "
                "written. Restore the base model and the adapter, or choose fp32."
            )
    with _new_file(out) as partial:
        if out.suffix == _SUFFIX:
            tensors = {name: tensor.contiguous().clone() for name, tensor in original_tensors(family, states).items()}
            write_tensor_file(partial, tensors, _model_metadata(family, base, adapter, out.stem))
            loaded = _from_single_file(family, partial, DTYPES[dtype])
        else:
            pipeline.save_pretrained(partial, safe_serialization=True)
            _forget_paths(partial)
            loaded = family.pipeline_class.from_pretrained(
                str(partial), torch_dtype=DTYPES[dtype], local_files_only=True, **family.pipeline_extras
            )
        for name, state in states.items():
            differing = _differing_names(state, getattr(loaded, name).state_dict())
            if differing:
                raise WeightsError(f"{out.name} read back has another {name}: {differing[:3]} differ. It was removed.")
    return out


def _require_finite(module: torch.nn.Module, name: str, base: BaseModelRef, adapter: AdapterRef | None) -> None:
    """Refuse weights with NaN or infinity, which no reader can use and no comparison finds equal."""
    first = next((key for key, tensor in module.state_dict().items() if not tensor.isfinite().all()), None)
    if first is not None:
        merged = f" with the adapter {adapter.digest[:12]}" if adapter else ""
        raise WeightsError(
            f"{base.name}{merged} has weights that are not finite numbers: {first} of {name}. Look at the file in "
            f"{base.folder}; if it is damaged, copy the base model again. Nothing was written."
        )


def _for_comfyui(tensors: Mapping[str, Tensor], adapter: AdapterRef, base: BaseModelRef | None) -> dict[str, Tensor]:
    """Rescale `dora_scale` for ComfyUI, which divides by |W| where other tools divide by |W + delta|."""
    if base is None:
        raise WeightsError("A DoRA for ComfyUI is computed from the base's weights: name the base model.")
    family = family_of(base.folder)
    weights = {
        family.kohya_name(name): module.weight
        for name, module in parts.load_denoiser(base).named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }
    result = dict(tensors)
    for layer, keys in group_by_layer(tensors).items():
        if "dora_scale" not in keys:
            continue
        if layer not in weights:
            raise WeightsError(
                f"--for comfyui: {layer} joins several layers of {family.layout.title}, which a DoRA for ComfyUI "
                "cannot express. Export it merged, or with the rule of LyCORIS."
            )
        factors = {part: tensors[key] for part, key in keys.items() if part != "dora_scale"}
        change = change_of(factors)
        assert change is not None
        weight = weights[layer].detach()
        base_norms, changed_norms = weight.flatten(1).norm(dim=1), (weight + change(weight)).flatten(1).norm(dim=1)
        scale = tensors[keys["dora_scale"]]
        result[keys["dora_scale"]] = scale * (base_norms / changed_norms).view(scale.shape)
    return result


def _require_same_changes(path: Path, expected: Mapping[str, Tensor], dtype: DtypeName) -> None:
    """Check that the file holds the expected tensors of each layer, up to the rounding of the precision."""
    with safe_open(path, framework="pt") as file:
        groups = group_by_layer(file.keys())
        if {key for keys in groups.values() for key in keys.values()} != expected.keys():
            raise WeightsError(f"{path.name} does not hold the exported tensors. It was removed.")
        for layer, keys in groups.items():
            for part, key in keys.items():
                limit = _ROUNDING[dtype] * max(expected[key].abs().max().item(), 1e-6)
                difference = (file.get_tensor(key).float() - expected[key]).abs().max().item()
                if not difference <= limit:  # NaN is neither
                    raise WeightsError(f"{path.name}: {part} of {layer} differs from the adapter. It was removed.")


def _require_tensors(path: Path, expected: Mapping[str, Tensor]) -> None:
    with safe_open(path, framework="pt") as file:
        if set(file.keys()) != expected.keys() or any(
            not torch.equal(file.get_tensor(key), expected[key]) for key in expected
        ):
            raise WeightsError(f"{path.name} does not hold the exported tensors. It was removed.")


def _differing_names(written: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> list[str]:
    # A tensor that is missing in the file stays on the device "meta", without storage.
    return sorted(written.keys() ^ loaded.keys()) or [
        name for name in written if loaded[name].is_meta or not torch.equal(written[name], loaded[name])
    ]


def _from_single_file(family: Family, path: Path, dtype: torch.dtype) -> Any:
    from sdlora.models.progress_bars import no_progress_bars

    present = {text.encoder for text in family.layout.text_of(family.folder)}
    absent = {name: None for t in family.layout.text if t.encoder not in present for name in (t.encoder, t.tokenizer)}
    try:
        with no_progress_bars():
            pipeline = family.pipeline_class.from_single_file(
                str(path), config=str(family.folder), local_files_only=True, torch_dtype=dtype, **absent
            )
            for component in pipeline.components.values():
                if hasattr(component, "tie_weights"):  # T5 stores one of the two names of its embedding
                    component.tie_weights()
            return pipeline
    except Exception as error:  # the conversion of diffusers raises many kinds of errors
        raise WeightsError(f"{path.name} cannot be read back ({type(error).__name__}: {error}).") from error


def _model_metadata(family: Family, base: BaseModelRef, adapter: AdapterRef | None, title: str) -> dict[str, str]:
    prediction = parts.load_scheduler(base).config.get("prediction_type", "flow")
    entries = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": family.kohya_metadata(prediction)["modelspec.architecture"].removesuffix("/lora"),
        "modelspec.implementation": _IMPLEMENTATIONS[family.layout.name],
        "modelspec.title": title,
        "modelspec.prediction_type": "v" if prediction == "v_prediction" else prediction,
        "modelspec.resolution": f"{family.native_resolution}x{family.native_resolution}",
        "sdlora.base_digest": base.digest,
    }
    return entries | ({"sdlora.adapter_digest": adapter.digest} if adapter else {})


def _forget_paths(folder: Path) -> None:
    """Remove the local paths that transformers and diffusers write into the settings of a part."""
    for path in folder.rglob("*.json"):
        value = json.loads(path.read_text())
        if isinstance(value, dict) and "_name_or_path" in value:
            del value["_name_or_path"]
            path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


@contextmanager
def _new_file(out: Path) -> Iterator[Path]:
    """Yield a temporary path next to `out`; it is renamed to `out` if the block succeeds.

    Raises:
        StorageError: `out` exists already or cannot be written.
    """
    if out.exists():
        raise StorageError(f"{out} exists already. Choose another name, or remove it first.")
    try:
        with written_aside(out) as partial:
            yield partial
    except OSError as error:
        raise StorageError(f"Cannot write {out}: {error}. Free some space and run again.") from error
