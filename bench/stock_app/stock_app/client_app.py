"""Train and evaluate with torch.optim, as Flower's quickstart does."""

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch.nn.functional import binary_cross_entropy_with_logits as loss_of

from stock_app.net import Net

app = ClientApp()
EPOCHS, BATCH, RATE = 5, 64, 0.1


def load(message: Message, context: Context, part: str) -> tuple[Net, torch.Tensor, torch.Tensor]:
    """The sent model and this node's rows."""
    with np.load(str(context.node_config["data"])) as file:
        x, y = torch.from_numpy(file[f"{part}_x"]), torch.from_numpy(file[f"{part}_y"])
    net = Net(x.shape[1])
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return net, x, y


@app.train()
def train(message: Message, context: Context) -> Message:
    """Local epochs."""
    net, x, y = load(message, context, "train")
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, weight_decay=0.003)
    net.train()
    for _ in range(EPOCHS):
        for index in torch.split(torch.randperm(len(y)), BATCH):
            optimizer.zero_grad()
            loss = loss_of(net(x[index]), y[index])
            loss.backward()
            optimizer.step()
    metrics = MetricRecord({"train_loss": loss.item(), "num-examples": len(y)})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Validation loss."""
    net, x, y = load(message, context, "validation")
    net.eval()
    with torch.no_grad():
        loss = loss_of(net(x), y).item()
    metrics = MetricRecord({"eval_loss": loss, "num-examples": len(y)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
