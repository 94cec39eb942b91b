"""Results of a finished run: the chosen adapter, the runner-up with the evidence, and the costs."""

from __future__ import annotations

from huggingface_hub import parse_local_safetensors_file_metadata

from sdlora.core.files import replace_file
from sdlora.core.refs import ADAPTER_WEIGHTS
from sdlora.lora.manifest import AdapterOrigin
from sdlora.lora.save import save_adapter
from sdlora.models import parts
from sdlora.models.families import find_layout
from sdlora.models.files.folder_check import weights_files
from sdlora.records.choice import CHOICE_FILE
from sdlora.records.costs import Costs
from sdlora.training.job import TrainingJob
from sdlora.training.loop import Run
from sdlora.training.run_folder import ADAPTER_FOLDER, MODEL_FOLDER, RUNNER_UP_FOLDER


def write_adapters(run: Run) -> None:
    """Write `choice.json` with the evidence, the runner-up if there is one, and the chosen adapter, in this order."""
    job, choice, chooser = run.job, run.chooser.choice(run.done), run.chooser

    def write(subfolder: str, step: int) -> None:
        assert job.lora is not None
        origin = AdapterOrigin(
            name=job.name,
            snapshot_digest=job.snapshot.digest,
            run_digest=job.digest,
            prediction_type=run.loss.objective.prediction,
            resolution_px=parts.native_resolution(job.base),
            training=job.config.model_dump(mode="json"),
            captions=[caption for row in job.snapshot.train for caption in row.captions],
            details=_details(run, step),
        )
        text_encoders = run.loss.text.encoders if run.loss.text else None
        save_adapter(job.folder / subfolder, run.denoiser, job.lora, job.base, origin, text_encoders)

    replace_file(job.folder / CHOICE_FILE, f"{choice.model_dump_json(indent=2)}\n".encode())
    if choice.rule == "last":
        with run.learner.averaged():
            write(ADAPTER_FOLDER, choice.step)
        return
    # The adapter last: its folder marks the run as finished.
    for subfolder, result in ((RUNNER_UP_FOLDER, chooser.runner_up), (ADAPTER_FOLDER, chooser.best)):
        if result is not None:
            weights = chooser.weights_of(result)
            run.learner.assign([weights[name] for name in run.learner.parameters])
            write(subfolder, result.step)


def costs_of_run(job: TrainingJob) -> Costs:
    """Collect the costs of a finished run: its measured time and memory, its steps, and its files.

    Raises:
        TrainingError: the measurements cannot be read.
        WeightsError: the weights are missing.
    """
    if job.lora is None:
        model = job.folder / MODEL_FOLDER
        files = weights_files(model, find_layout(model).denoiser)
    else:
        files = [job.folder / ADAPTER_FOLDER / ADAPTER_WEIGHTS]
    headers = [parse_local_safetensors_file_metadata(file) for file in files]
    from_files = {
        "steps": job.config.steps,
        "trained_parameters": sum(sum(header.parameter_count.values()) for header in headers),
        "file_bytes": sum(file.stat().st_size for file in files),
    }
    return Costs.load(job.folder).model_copy(update=from_files)


def _details(run: Run, step: int) -> dict[str, str]:
    """Return the training settings under the names that kohya's tools display."""
    config = run.job.config
    details = {
        "ss_steps": str(step),
        "ss_max_train_steps": str(config.steps),
        "ss_batch_size_per_device": str(config.batch_size),
        "ss_learning_rate": f"{config.learning_rate:g}",
        "ss_lr_scheduler": config.schedule,
        "ss_lr_warmup_steps": str(config.warmup_steps),
        "ss_optimizer": config.optimizer,
        "ss_seed": str(config.seed),
        "ss_min_snr_gamma": str(config.min_snr_gamma or None),
        "ss_noise_offset": str(config.noise_offset or None),
        "ss_caption_dropout_rate": f"{config.caption_dropout:g}",
        "ss_max_grad_norm": f"{config.max_grad_norm:g}",
        "ss_num_train_images": str(len(run.inputs.train.rows)),
    }
    if run.loss.text is not None:
        details["ss_text_encoder_lr"] = f"{config.text_encoder_learning_rate:g}"
    if run.inputs.prior is not None:
        details |= {
            "ss_prior_loss_weight": f"{config.prior_weight:g}",
            "ss_num_reg_images": str(len(run.inputs.prior.rows)),
        }
    return details
