"""The Flower ClientApp: one message in, one record out; all else is in ``hospital/``."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Message, RecordDict  # noqa: TID253  (a Flower app)
from flwr.clientapp import ClientApp  # noqa: TID253

from tasks.federation.hospital.client import answer
from tasks.federation.hospital.config import STANDING
from tasks.federation.hospital.joined_run import answer_of_run
from tasks.federation.messages import FORMS, Question

RECORD = "fedrisk"
"""Key of the one record in every message."""

app = ClientApp()


def _handler(question: Question) -> Callable[[Message, Context], Message]:
    def handle(message: Message, context: Context) -> Message:
        import torch

        torch.set_num_threads(1)
        record = dict(message.content[RECORD])
        config = str(context.node_config["config"])
        if config == STANDING:
            found = answer_of_run(str(context.run_config.get("run", "")), question, record)
        else:
            found = answer(config, question, record)
        return Message(RecordDict({RECORD: ConfigRecord(found)}), reply_to=message)

    return handle


for _question in Question:
    _kind, _, _action = FORMS[_question].flower.partition(".")
    _register = getattr(app, _kind)
    (_register(_action) if _action else _register())(_handler(_question))
