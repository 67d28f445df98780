from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake
from gold_run import at, gold_run

from tasks.errors import DataError
from tasks.evaluate.baselines import central, gold_rows, local
from tasks.model.artifact import RiskModel
from tasks.model.metrics import auroc
from tasks.run.step import Context, Result


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return gold_run(tmp_path_factory.mktemp("baselines"))


def test_central_learns_from_all_hospitals_and_local_from_its_own(context: Context) -> None:
    whole = central(context)
    own = local(at(context, "hospital-2"))
    assert whole.figures["rows"] == sum(
        len(gold_rows(context, h).of("train")) for h in context.plan.hospitals
    )
    assert own.figures["rows"] == len(gold_rows(context, "hospital-2").of("train"))
    for result in (whole, own):
        figures = result.figures
        assert figures["epochs"] == 1 + int(np.argmin(figures["history"]))
        assert next(iter(figures["importance"])) == "age"
    assert whole.figures["validation"]["auroc"] > 0.75
    model = RiskModel.load(context.run.path / whole.files["model"])
    test = gold_rows(context, "hospital-1").of("test")
    assert auroc(test.y, model.logits(test.x)) > 0.7
    assert model.threshold == whole.figures["threshold"]


def test_permuted_test_labels_change_no_byte_threshold_or_epoch(
    context: Context, tmp_path: Path
) -> None:
    other = gold_run(tmp_path)
    for hospital in other.plan.hospitals:
        uri = other.run.read("features", hospital).tables["gold"].uri
        table = DeltaTable(uri).to_pyarrow_table()
        test = pc.equal(table["part"], "test").to_numpy(zero_copy_only=False)
        label = table["label"].to_numpy().copy()
        label[test] = 1 - label[test]
        place = table.column_names.index("label")
        write_deltalake(uri, table.set_column(place, "label", pa.array(label)), mode="overwrite")
        manifest = other.run.read("features", hospital)
        tables = {"gold": manifest.tables["gold"].model_copy(update={"version": 1})}
        other.run.write(manifest.model_copy(update={"tables": tables}))
        assert not np.array_equal(gold_rows(other, hospital).y, gold_rows(context, hospital).y)

    def left(where: Context, result: Result) -> tuple[object, ...]:
        return (where.run.path / result.files["model"]).read_bytes(), result.figures

    assert left(context, central(context)) == left(other, central(other))
    own = [left(c, local(at(c, "hospital-1"))) for c in (context, other)]
    assert own[0] == own[1]


def test_rows_are_not_pooled_where_the_study_forbids_it(tmp_path: Path) -> None:
    forbidden = ("pooling=forbidden", "gates.min_ratio_to_central=null")
    with pytest.raises(DataError, match="pooling: forbidden"):
        central(gold_run(tmp_path, overrides=forbidden))
