"""The ClientApp's name in the bundle; Flower looks for an assignment."""

from tasks.federation.flower import client_app as client

app = client.app
