"""What a version ships with: a report page, a model card, and one folder that holds everything."""

from sdlora.release.data_page import WrittenPage, write_data_page
from sdlora.release.folder import write_release
from sdlora.release.model_card import write_model_card
from sdlora.release.record import Curve, DataSummary, NearDuplicate, RejectedImage, VersionRecord
from sdlora.release.report import write_report

__all__ = [
    "Curve",
    "DataSummary",
    "NearDuplicate",
    "RejectedImage",
    "VersionRecord",
    "WrittenPage",
    "write_data_page",
    "write_model_card",
    "write_release",
    "write_report",
]
