from __future__ import annotations

import socket
import sqlite3

import pytest

from deployments import doctor
from deployments.doctor import diagnose
from sdlora.core.progress import SILENT
from sdlora.store.image_store import ImageStore
from tests.stores import opened_dataset
from tests.tiny import draw_images


@pytest.fixture
def home(tmp_path):
    folder = draw_images(tmp_path / "images", 2)
    with opened_dataset(tmp_path / "home") as dataset:
        for path in folder.glob("*.png"):
            dataset.add_image(path.read_bytes())
    return tmp_path / "home"


def look(home, subject):
    return next(finding for finding in diagnose(home) if finding.subject == subject)


def test_a_sound_state_folder_has_no_problem(home):
    findings = {finding.subject: finding.level for finding in diagnose(home)}
    assert findings["image database"] == findings["state folder"] == "good"
    assert findings["PyTorch"] == "good"


def test_a_damaged_image_database_is_a_problem_with_a_remedy(home):
    (home / "images.db").write_bytes(b"not a database" * 500)
    finding = look(home, "image database")
    assert finding.level == "problem"
    assert "backup" in finding.text


def test_a_damaged_mlflow_store_is_a_problem(home):
    (home / "mlflow").mkdir()
    sqlite3.connect(home / "mlflow" / "mlflow.db").execute("create table t (x)").connection.close()
    assert look(home, "MLflow").level == "good"
    (home / "mlflow" / "mlflow.db").write_bytes(b"y" * 9000)
    assert look(home, "MLflow").level == "problem"


def test_a_password_in_the_tracking_address_is_not_shown(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://person:secret@127.0.0.1:5000")
    assert "secret" not in look(home, "MLflow").text


def test_a_taken_port_is_told_with_another_to_take(home, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(doctor, "PREFECT_PORT", taken.getsockname()[1])
        assert f"--prefect-port {taken.getsockname()[1] + 1}" in look(home, "ports").text


def test_a_misspelt_state_folder_is_checked_deeply_without_being_made(tmp_path):
    assert doctor.diagnose_deeply(tmp_path / "misspelt", SILENT.on_progress, repair=True) == []
    assert not list(tmp_path.iterdir())


def test_bytes_of_a_purged_image_are_not_missed_and_others_are(home):
    with ImageStore.open(home) as store:
        purged, lost = (image.sha256 for image in store.dataset("icons").images())
        store.purge(purged, "asked for", "me")
        assert look(home, "image bytes").level == "good"
        store.blobs.remove(lost)
    finding = look(home, "image bytes")
    assert finding.level == "problem"
    assert (
        f"1 of 1 images that were looked up have no bytes in {home / 'blobs'}, the first is {lost[:12]}" in finding.text
    )
    assert "sdlora doctor --deep" in finding.text
