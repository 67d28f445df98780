"""The study: one question asked of one kind of data, as a typed model."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tasks.study.base import FLAGS, RESERVED_NAMES, Name, Part, canonical
from tasks.study.columns import Column, Feature, Target, features_of
from tasks.study.compute import Compute
from tasks.study.judging import Evaluation, Gates
from tasks.study.learning import Federation, Model, Split
from tasks.study.source import Hospital, Source
from tasks.study.spelling import Spelling, spelling_of, words_of

RESERVED = frozenset({"_row", "patient", "label", "part", "reason"})
"""Columns that fedrisk adds to a hospital's tables (docs/steps.md)."""


class Study(Part):
    """One YAML file: columns, target, hospitals, model, federation, evaluation and gates."""

    name: Name
    title: str
    description: str = ""
    citation: str = ""
    """Owner of the data and how to cite it."""
    owner: str = "fedrisk"
    """The person or group responsible for the study; shown in Airflow."""
    pooling: Literal["allowed", "forbidden"]
    """Whether rows may be pooled for a centralized baseline."""
    schedule: str | None = None
    """Cron expression or Airflow preset of the retraining; null for manual runs only."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    id: str | None = None
    """The column that identifies a patient; by default an id is computed from the row's content."""
    target: Target
    columns: Annotated[dict[str, Column], Field(min_length=1)]
    source: Source
    hospitals: Annotated[dict[Name, Hospital], Field(min_length=1)]
    split: Split
    model: Model = Model()
    federation: Federation = Federation()
    evaluation: Evaluation = Evaluation()
    gates: Gates = Gates()
    compute: Compute = Compute()
    """Resources of the run's pods (launcher ``kubernetes``)."""

    @model_validator(mode="before")
    @classmethod
    def _no_ratio_without_pooling(cls, data: Any) -> Any:
        """Switch the default gate off where there is no centralized model to compare with."""
        if isinstance(data, dict) and data.get("pooling") == "forbidden":
            gates = data.get("gates", {})
            if isinstance(gates, dict) and "min_ratio_to_central" not in gates:
                return {**data, "gates": {**gates, "min_ratio_to_central": None}}
        return data

    @field_validator("schedule")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is None or re.fullmatch(
            r"@(once|hourly|daily|weekly|monthly|quarterly|yearly)", value
        ):
            return value
        if len(value.split()) != 5 or not re.fullmatch(r"[0-9A-Za-z*/,#? -]+", value):
            raise ValueError("needs a cron expression of five parts, @daily or the like, or null")
        # Airflow's own library; a hospital, a pod and a model's caller are without it.
        if find_spec("croniter") is not None:
            try:
                import_module("croniter").croniter(value).get_next()
            except ValueError as error:
                raise ValueError(f"is no cron expression that ever comes ({error})") from None
        return value

    @model_validator(mode="after")
    def _sound(self) -> Study:
        self._check_columns()
        self._check_hospitals()
        needed = self.federation.min_hospitals
        if needed > len(self.hospitals):
            raise ValueError(
                f"federation.min_hospitals is {needed}, but the study has "
                f"{len(self.hospitals)} hospitals"
            )
        count = self.federation.selection.count
        if count is not None and count > len(self.hospitals):
            raise ValueError(
                f"federation.selection.count is {count}, but the study has "
                f"{len(self.hospitals)} hospitals"
            )
        if self.federation.strategy == "krum":
            malicious = self.federation.options.malicious or 0
            if len(self.hospitals) < 2 * malicious + 3:
                raise ValueError(
                    f"federation.strategy krum tolerates {malicious} malicious hospitals only "
                    f"among {2 * malicious + 3} or more (Blanchard et al. 2017); the study has "
                    f"{len(self.hospitals)}"
                )
        if self.pooling == "forbidden" and self.gates.min_ratio_to_central is not None:
            raise ValueError(
                "gates.min_ratio_to_central needs a centralized model, which pooling: forbidden "
                "rules out; set it to null"
            )
        return self

    def _check_columns(self) -> None:
        if self.target.column in self.columns:
            raise ValueError(f"target.column {self.target.column} is also in columns: a leak")
        if self.id is not None and self.id in self.columns:
            raise ValueError(f"id {self.id} is also in columns: an id is not a feature")
        raw = [name.lower() for name in self.raw_columns]
        twice = sorted({name for name in raw if raw.count(name) > 1})
        if twice:
            raise ValueError(
                f"columns, id, source.site_column and target.column name {twice} twice (case is "
                "ignored)"
            )
        reserved = sorted(RESERVED & {name.lower() for name in self.columns})
        if reserved:
            raise ValueError(f"columns: fedrisk's own tables use {reserved}; rename them")
        names = [feature.name for feature in self.features]
        lowered = [name.lower() for name in names]
        twice = sorted({name for name in names if lowered.count(name.lower()) > 1})
        if twice:
            raise ValueError(f"columns: two columns have the same feature {twice}: rename one")
        if self.evaluation.reference not in ("auto", *self.columns):
            raise ValueError(
                f"evaluation.reference {self.evaluation.reference} is neither auto nor a column"
            )
        if self.evaluation.published:
            unknown = sorted(set(self.evaluation.published.weights) - set(names))
            if unknown:
                raise ValueError(
                    f"evaluation.published.weights names {unknown}; the features are {names}"
                )
        others = [alias for column in self.columns.values() for alias in column.aliases]
        twice = sorted({each for each in others if (others + self.raw_columns).count(each) > 1})
        if twice:
            raise ValueError(f"aliases {twice} are names of another column, or stand there twice")
        self._check_codes()
        for name, column in self.columns.items():
            absent = sorted(set(column.optional_at) - set(self.hospitals))
            if absent:
                raise ValueError(f"columns.{name}.optional_at names unknown hospitals {absent}")
        if self.source.fields:
            lacking = sorted({*self.raw_columns} - {*self.source.fields})
            if lacking:
                raise ValueError(f"source.fields lacks {lacking}, which the study uses")

    def _check_codes(self) -> None:
        """Refuse a code that stands for no value of its column."""
        given = {f"columns.{name}.codes": (name, c.codes) for name, c in self.columns.items()}
        for hospital, own in self.hospitals.items():
            unknown = sorted({*own.codes} - {*self.columns, self.target.column})
            if unknown:
                raise ValueError(f"hospitals.{hospital}.codes names {unknown}; expected columns")
            given |= {
                f"hospitals.{hospital}.codes.{name}": (name, codes)
                for name, codes in own.codes.items()
            }
        for where, (name, codes) in given.items():
            column = self.columns.get(name)
            markers = column.missing if column else self.target.missing
            spelling = spelling_of(words_of(markers, self._values(name), {}))
            for code, value in codes.items():
                known = spelling.known(value)
                if column is not None and column.range is not None:
                    try:
                        sound = known is None or column.range[0] <= float(known) <= column.range[1]
                    except ValueError:
                        sound = False
                    expected = "a number in the column's range"
                else:
                    values = sorted(set(self._values(name).values()))
                    sound = known is None or known in values
                    expected = f"one of {', '.join(values)}"
                if not sound:
                    raise ValueError(
                        f"{where}: {code!r} stands for {value!r}; expected {expected}, or a marker "
                        "in missing"
                    )

    def _check_hospitals(self) -> None:
        needed = {"own": "path", "site_column": "site", "deal": "share"}[self.source.kind]
        given = [getattr(hospital, needed) for hospital in self.hospitals.values()]
        for name, hospital in self.hospitals.items():
            if name in RESERVED_NAMES:
                raise ValueError(f"hospitals.{name}: this name is another owner's, choose another")
            own = getattr(hospital, needed)
            if needed != "share" and own is not None and given.count(own) > 1:
                raise ValueError(f"hospitals.{name}.{needed}: another hospital has the same one")
            for key in ("path", "site", "share"):
                if (getattr(hospital, key) is not None) != (key == needed):
                    raise ValueError(
                        f"hospitals.{name}: source kind {self.source.kind} needs {needed} and "
                        f"nothing else of path, site and share"
                    )
            address = hospital.path or ""
            if self.source.format == "sql" and not re.fullmatch(
                r"postgresql://[^@?#\s/]+/[^@?#\s/]+", address
            ):
                raise ValueError(
                    f"hospitals.{name}.path: expected postgresql://host[:port]/database, without "
                    "user, password or options: those are PG* variables of its owner"
                )
            if hospital.columns and self.source.kind != "own":
                raise ValueError(
                    f"hospitals.{name}.columns: source kind {self.source.kind} has one table for "
                    "all; use columns.*.aliases"
                )
            unknown = sorted({*hospital.columns} - {*self.raw_columns})
            if unknown:
                raise ValueError(f"hospitals.{name}.columns names {unknown}; expected columns")
            renamed = list(hospital.columns.values())
            if len({*renamed}) < len(renamed):
                raise ValueError(f"hospitals.{name}.columns gives one name to two columns")
            if hospital.share is None:
                continue
            for key in hospital.share.prefer_mean:
                if key not in self.columns or self.columns[key].range is None:
                    raise ValueError(f"hospitals.{name}.share.prefer_mean: {key} is not numeric")
            for key, weights in hospital.share.prefer.items():
                known = set(self.columns[key].categories) if key in self.columns else set()
                if not set(weights) <= known:
                    raise ValueError(
                        f"hospitals.{name}.share.prefer.{key} must weight categories of a "
                        f"category column; known here: {sorted(known)}"
                    )

    @cached_property
    def features(self) -> list[Feature]:
        """The model's inputs in their fixed order."""
        return features_of(self.columns)

    def spelling(self, name: str, hospital: str | None = None, marks: bool = False) -> Spelling:
        """How the texts of a column, or of the target, are read.

        Args:
            name: The column.
            hospital: Whose codes count besides the study's.
            marks: Whether numbers are written with the source's marks, as in its tables. The
                outcome is read from tables alone.
        """
        own = self.hospitals[hospital].codes.get(name, {}) if hospital in self.hospitals else {}
        values, column = self._values(name), self.columns.get(name)
        if column is None:
            words = words_of(self.target.missing, values, own)
        else:
            words = words_of(column.missing, values, {**column.codes, **own})
        if column is not None and not marks:
            return spelling_of(words)
        # A program that writes 1,5 writes 1,0 for a flag.
        grouped = column is not None and column.range is not None
        return spelling_of(words, (self.source.decimal, self.source.thousands if grouped else ""))

    def _values(self, name: str) -> dict[str, str]:
        """The texts that a column's or the target's values have, and which values."""
        if name == self.target.column:
            values = [*self.target.positive, *self.target.negative]
        elif self.columns[name].type == "flag":
            return FLAGS
        else:
            values = self.columns[name].categories
        return {value: canonical(value) for value in values}

    @property
    def raw_columns(self) -> list[str]:
        """The columns that every source must deliver: id, site column, columns, target."""
        own = [self.id] if self.id else []
        site = [self.source.site_column] if self.source.site_column else []
        return [*own, *site, *self.columns, self.target.column]

    def digest(self) -> str:
        """Fingerprint of everything that a result depends on (SHA-256, 16 hex digits)."""
        # Unsorted: the order of columns is the order of the model's inputs. The resources of the
        # pods do not change the result.
        text = json.dumps(self.model_dump(mode="json", exclude={"compute"}))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
