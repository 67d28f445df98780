"""fedrisk: federated risk prediction for hospitals.

The rooms of this package follow the data's way: study -> lake -> data -> model -> federation ->
evaluate -> registry, with ``telemetry`` beside them and ``cli`` on top. A room imports only rooms
before it (``tests/test_house.py`` holds that), and nothing here imports Airflow.
"""

__version__ = "0.1.0"
