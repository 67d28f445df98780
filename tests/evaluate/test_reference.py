from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gold_run import gold_run
from sklearn.linear_model import LogisticRegression

from tasks.data.profile import Profile
from tasks.errors import DataError
from tasks.evaluate.baselines import gold_rows
from tasks.evaluate.reference import candidate, reference
from tasks.model.artifact import RiskModel
from tasks.model.metrics import auroc
from tasks.model.rows import concatenate
from tasks.run.step import Context

PUBLISHED = (
    "evaluation.published={name: Textbook, source: a book, intercept: -7, "
    "weights: {age: 0.07, hypertension: 0.5, bmi: 0.02}}"
)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return gold_run(tmp_path_factory.mktemp("reference"), overrides=(PUBLISHED,))


def test_the_strongest_column_is_found_and_fitted_as_on_rows(context: Context) -> None:
    result = reference(context)
    assert result.figures["column"] == "age"
    model = RiskModel.load(context.run.path / result.files["model"])
    rows = concatenate([gold_rows(context, h) for h in context.plan.hospitals]).of("train")
    fit = LogisticRegression(C=np.inf, max_iter=1000).fit(rows.x[:, :1], rows.y)
    assert model.flat[0] == pytest.approx(fit.coef_[0, 0], rel=0.1)
    assert model.probability(rows.x).mean() == pytest.approx(rows.y.mean(), abs=0.01)
    assert (model.flat[1:-1] == 0).all()
    assert result.figures["training"]["auroc"] == pytest.approx(
        auroc(rows.y, rows.x[:, 0]), abs=0.01
    )


def test_every_column_is_a_candidate_with_its_rates(context: Context) -> None:
    profiles = [
        Profile.model_validate(context.run.read("features", h).figures["profile"])
        for h in context.plan.hospitals
    ]
    rows = concatenate([gold_rows(context, h) for h in context.plan.hospitals]).of("train")
    for column in context.study.columns:
        found = candidate(context.study, column, profiles)
        assert found is not None
        x = np.where(np.isnan(rows.x), found.centre, rows.x)
        score = (x - found.centre) @ found.weights + found.intercept
        assert found.auroc == pytest.approx(auroc(rows.y, score), abs=0.02), column
        risk = 1 / (1 + np.exp(-score))
        assert risk.mean() == pytest.approx(rows.y.mean(), abs=0.01), column


def test_the_published_score_is_what_was_published(context: Context) -> None:
    result = reference(context)
    model = RiskModel.load(context.run.path / result.files["published"])
    x = gold_rows(context, "hospital-1").x
    names = list(model.features)
    age, high, bmi = (x[:, names.index(n)] for n in ("age", "hypertension", "bmi"))
    whole = np.isfinite(bmi)
    wanted = -7 + 0.07 * age + 0.5 * high + 0.02 * bmi
    np.testing.assert_allclose(model.logits(x)[whole], wanted[whole], atol=1e-4)
    # Who lacks the value is given the mean of those who have it.
    given = (model.logits(x) - (-7 + 0.07 * age + 0.5 * high))[~whole] / 0.02
    np.testing.assert_allclose(given, np.nanmean(bmi), atol=4)


def test_the_study_may_name_the_column(tmp_path: Path) -> None:
    chosen = ("evaluation.reference=hypertension", "evaluation.published=null")
    result = reference(gold_run(tmp_path, overrides=chosen))
    assert result.figures["column"] == "hypertension"
    assert list(result.files) == ["model"]


def test_profiles_without_groups_are_an_error_that_says_so(tmp_path: Path) -> None:
    context = gold_run(tmp_path)
    for hospital in context.plan.hospitals:
        manifest = context.run.read("features", hospital)
        profile = manifest.figures["profile"]
        for column in profile["columns"].values():
            column |= {"groups": [], "missing": None}
        context.run.write(manifest.model_copy(update={"figures": {"profile": profile}}))
    with pytest.raises(DataError, match="too few patients"):
        reference(context)
