"""The typed study: the model of one YAML file, on the standard library, pydantic and ruamel."""

from tasks.study.base import canonical
from tasks.study.columns import Column, Feature, Target
from tasks.study.judging import Evaluation, Gates, PublishedScore, Strata
from tasks.study.learning import Federation, Model, Schedule, Selection, Split, Weighting
from tasks.study.listed import Listed
from tasks.study.reading import asked_sites, find_study, read_study
from tasks.study.source import Hospital, Share, Source
from tasks.study.study import Study

__all__ = [
    "Column",
    "Evaluation",
    "Feature",
    "Federation",
    "Gates",
    "Hospital",
    "Listed",
    "Model",
    "PublishedScore",
    "Schedule",
    "Selection",
    "Share",
    "Source",
    "Split",
    "Strata",
    "Study",
    "Target",
    "Weighting",
    "asked_sites",
    "canonical",
    "find_study",
    "read_study",
]
