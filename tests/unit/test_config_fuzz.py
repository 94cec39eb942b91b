"""Whatever stands in a file, a flag or a form: a configuration that can be written down, or our own error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzzed_settings import check_flag, check_parameters, check_text, flags, parameters, texts

FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


@FEW
@given(text=texts())
def test_any_file_is_a_configuration_or_our_own_error(folder: Path, text: str) -> None:
    check_text(text, folder)


@FEW
@given(text=flags())
def test_any_flag_is_a_setting_or_our_own_error(folder: Path, text: str) -> None:
    check_flag(text, folder)


@FEW
@given(given_parameters=parameters())
def test_any_parameters_are_a_configuration_or_our_own_error(given_parameters: Any) -> None:
    check_parameters(*given_parameters)
