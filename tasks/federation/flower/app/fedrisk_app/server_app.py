"""The ServerApp's name in the bundle; Flower looks for an assignment."""

from tasks.federation.flower import server_app

app = server_app.app
