"""The embedded Airflow: SQLite, LocalExecutor and a few processes, started for one command.

Airflow itself is never imported; it is started with ``python -m airflow`` and called over REST.
"""
