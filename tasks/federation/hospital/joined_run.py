"""What a standing SuperNode knows of a run: only what its own hospital has left in its own bucket.

The step ``join`` leaves a configuration there: which version of which table the run may use. The
server says no more than the run's id. Rows are read for the first message of a run and kept for the
next, because each message is answered by a new process: below the SuperNode's own folder, which no
other user may enter and no other hospital's SuperNode shares, until the SuperNode ends. One that
was killed has them deleted when it is started again. Whether the hospital has joined again is asked
when a run begins, which may be again, and once its time is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.federation.hospital.client import Hospital, guarded
from tasks.federation.hospital.config import (
    CONFIG,
    check_approved,
    config_of,
    own_hospital,
)
from tasks.federation.hospital.row_cache import (
    ROWS,
    _folder,
    _forget_old,
    _has_ended,
    _kept,
    _load,
    _of_the_same_rows,
    _save,
)
from tasks.federation.hospital.training_rows import read_training_rows
from tasks.federation.messages import Question
from tasks.federation.wire import Wire
from tasks.files import write_atomically
from tasks.settings import Settings


def answer_of_run(run: str, question: str, wire: Mapping[str, Any]) -> Wire:
    """Answer a question of a run in a process that knows nothing of it yet.

    Args:
        run: The run's id, as the server says.
        question: A ``Question``'s value.
        wire: The question's fields.
    """

    def work() -> Wire:
        settings, hospital = Settings.from_environment(), own_hospital()
        folder = _folder(settings, hospital, run)
        kept = _kept(folder, hospital, run)
        # A run begins with statistics, and so does one that is started again with other tables.
        if kept is not None and question != Question.STATISTICS and not _has_ended(kept):
            config = kept
        else:
            config = config_of(settings, run, hospital)
        if kept is not None and _of_the_same_rows(kept, config):
            check_approved(config)
            rows = _load(folder / ROWS)
        else:
            # First the file that says that rows are there: until they are read again, none are.
            (folder / CONFIG).unlink(missing_ok=True)
            rows = read_training_rows(config)
            _save(folder / ROWS, rows)
        if config != kept:
            write_atomically(folder / CONFIG, config.model_dump_json().encode())
            _forget_old(folder)
        return Hospital(config, rows).answer(question, wire)

    return guarded(work)
