"""The Flower ClientApp: one message in, one record out; all else is ``hospital.py``."""

from __future__ import annotations

from flwr.app import ConfigRecord, Context, Message, RecordDict  # noqa: TID253  (a Flower app)
from flwr.clientapp import ClientApp  # noqa: TID253

from tasks.federation.hospital.client import answer
from tasks.federation.hospital.config import STANDING
from tasks.federation.hospital.joined_run import answer_of_run

RECORD = "fedrisk"
"""Key of the one record in every message."""

app = ClientApp()


def _handle(message: Message, context: Context, question: str) -> Message:
    import torch

    torch.set_num_threads(1)
    record = message.content[RECORD]
    config = str(context.node_config["config"])
    if config == STANDING:
        found = answer_of_run(str(context.run_config.get("run", "")), question, dict(record))
    else:
        found = answer(config, question, dict(record))
    return Message(RecordDict({RECORD: ConfigRecord(found)}), reply_to=message)


@app.query()  # type: ignore[untyped-decorator,unused-ignore]
def statistics(message: Message, context: Context) -> Message:
    """Sums for the federated standardisation."""
    return _handle(message, context, "statistics")


@app.train()  # type: ignore[untyped-decorator,unused-ignore]
def train(message: Message, context: Context) -> Message:
    """A round of local training, and the incoming model's evaluation."""
    return _handle(message, context, "train")


@app.evaluate()  # type: ignore[untyped-decorator,unused-ignore]
def close(message: Message, context: Context) -> Message:
    """The candidates' validation, and the hospital's own intercept."""
    return _handle(message, context, "close")
