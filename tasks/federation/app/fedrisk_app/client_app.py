"""The ClientApp's name in the bundle; Flower looks for an assignment."""

from tasks.federation import client

app = client.app
