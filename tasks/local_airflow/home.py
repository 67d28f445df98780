"""The embedded Airflow's folder: configuration, secrets, ports and the DAGs' fingerprint.

Everything is below ``<home>/airflow``; other Airflow installations on the machine are ignored.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import importlib.metadata
import io
import json
import os
import secrets
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import tasks
from tasks.errors import SettingsError
from tasks.files import write_atomically
from tasks.launch.environment import QUIET, settings_environment
from tasks.launch.pods import airflow_id
from tasks.settings import Settings

CHECKOUT = Path(tasks.__file__).parent.parent
PLUGINS = CHECKOUT / "plugins"
USER = "admin"
EXECUTOR = "ordered_executor.OrderedLocalExecutor"
PARALLELISM = 4
IMPORT_TIMEOUT = "300"
"""Seconds that reading a DAG file may take, before each task too; Airflow's 30 are few on a busy
machine, where a task would fail for it."""
POOLS = {"spark": (2, "steps that start a JVM: each takes about 1 GB and a core")}


@dataclass(frozen=True)
class AirflowHome:
    """The folder of one home's embedded Airflow."""

    settings: Settings

    @property
    def path(self) -> Path:
        """Airflow's home folder."""
        return self.settings.home / "airflow"

    @property
    def logs(self) -> Path:
        """Folder of the logs of Airflow's processes; tasks' logs are in ``logs/tasks``."""
        return self.path / "logs"

    @property
    def database(self) -> Path:
        """Airflow's SQLite file."""
        return self.path / "airflow.db"

    @property
    def dags(self) -> Path:
        """The DAG folder beside the package."""
        folder = CHECKOUT / "dags"
        if not (folder / "retrain.py").is_file():
            raise SettingsError(f"{folder}: no DAGs there; run fedrisk from its checkout.")
        return folder

    def password(self) -> str:
        """The password of the only user, made once in a file that only its owner can read."""
        path = self.path / "password.json"
        if not path.exists():
            _write_secret(path, json.dumps({USER: secrets.token_urlsafe(12)}))
        return str(json.loads(path.read_text(encoding="utf-8"))[USER])

    def _keys(self) -> dict[str, str]:
        path = self.path / "keys.json"
        if not path.exists():
            keys = {
                "fernet": base64.urlsafe_b64encode(os.urandom(32)).decode(),
                "session": secrets.token_urlsafe(32),
                "jwt": secrets.token_urlsafe(48),
            }
            _write_secret(path, json.dumps(keys))
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def airflow_id(self) -> str:
        """The label value of this Airflow's pods."""
        return airflow_id(self._keys()["fernet"])

    def configure(self, port: int, *, schedules: bool) -> str:
        """Write Airflow's configuration for one start.

        Args:
            port: Port of the API server and UI.
            schedules: Whether DAGs run on their schedules; otherwise only when triggered.

        Returns:
            The base address.
        """
        url, keys = f"http://127.0.0.1:{port}", self._keys()
        self.password()
        sections = {
            "core": {
                "dags_folder": str(self.dags),
                "plugins_folder": str(PLUGINS),
                "load_examples": "False",
                "executor": EXECUTOR,
                # Each is a waiting process of 130 MB, and two cores can use no more.
                "parallelism": str(PARALLELISM),
                "simple_auth_manager_users": f"{USER}:admin",
                "simple_auth_manager_passwords_file": str(self.path / "password.json"),
                "execution_api_server_url": f"{url}/execution/",
                "fernet_key": keys["fernet"],
                "dags_are_paused_at_creation": "True",
                "dagbag_import_timeout": IMPORT_TIMEOUT,
            },
            "database": {
                "sql_alchemy_conn": f"sqlite:///{self.database}",
                # Several processes write to one file, so they wait for its lock.
                "sql_alchemy_connect_args": "tasks.local_airflow.home.SQLITE",
                "sql_alchemy_connect_args_async": "tasks.local_airflow.home.SQLITE",
                "load_default_connections": "False",
            },
            "api": {
                "host": "127.0.0.1",
                "port": str(port),
                "base_url": url,
                "workers": "1",
                "secret_key": keys["session"],
                "expose_config": "False",
            },
            "api_auth": {"jwt_secret": keys["jwt"], "jwt_expiration_time": str(7 * 86400)},
            "scheduler": {
                # With the default of 1 s a chain of short steps would mostly wait.
                "scheduler_idle_sleep_time": "0.2",
                "use_job_schedule": str(schedules),
                "catchup_by_default": "False",
            },
            "dag_processor": {
                "min_file_process_interval": "30",
                "parsing_processes": "1",
                "dag_file_processor_timeout": IMPORT_TIMEOUT,
            },
            "logging": {
                "base_log_folder": str(self.logs / "tasks"),
                "dag_processor_child_process_log_directory": str(self.logs / "dags"),
            },
            "usage_data_collection": {"enabled": "False"},
        }
        # Airflow interpolates its configuration, so a bare % in a path would break it.
        parser = configparser.RawConfigParser()
        parser.read_dict(
            {s: {k: v.replace("%", "%%") for k, v in kv.items()} for s, kv in sections.items()}
        )
        text = io.StringIO()
        parser.write(text)
        _write_secret(self.path / "airflow.cfg", text.getvalue())
        local_settings = self.path / "config" / "airflow_local_settings.py"
        if self.settings.launcher == "kubernetes":
            write_atomically(local_settings, PRELOAD.encode())
        else:
            local_settings.unlink(missing_ok=True)
        return url

    def environment(self) -> dict[str, str]:
        """The environment of Airflow's processes."""
        found = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "FEDRISK_"))}
        local = "127.0.0.1,localhost"
        for key in ("NO_PROXY", "no_proxy"):
            found[key] = f"{found[key]},{local}" if found.get(key) else local
        found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found.get('PATH', '')}"
        found |= {"AIRFLOW_HOME": str(self.path), "PYTHONUNBUFFERED": "1"}
        return found | QUIET | settings_environment(self.settings)

    def command(self, *arguments: str) -> list[str]:
        """The command line of an Airflow command."""
        return [sys.executable, "-m", "airflow", *arguments]

    def fingerprint(self) -> str:
        """Fingerprint of all that DAGs depend on: files, settings, versions (SHA-256, hex)."""
        digest = hashlib.sha256(importlib.metadata.version("apache-airflow").encode())
        digest.update(tasks.__version__.encode() + str(self.dags).encode())
        digest.update(json.dumps(settings_environment(self.settings)).encode())
        folders = [self.dags, PLUGINS, self.settings.studies, self.settings.home / "studies"]
        files = {path for folder in folders for path in folder.rglob("*.*")}
        # The whole package, because modules that DAG files import import others.
        files |= set(Path(tasks.__file__).parent.rglob("*.py"))
        for path in sorted(path for path in files if path.is_file() and path.suffix != ".pyc"):
            digest.update(str(path).encode() + path.read_bytes())
        return digest.hexdigest()

    @property
    def dags_read(self) -> Path:
        """File with the fingerprint of the DAGs that the database has last read."""
        return self.path / "read"

    @property
    def prepared(self) -> Path:
        """File with the Airflow version of the database's schema."""
        return self.path / "prepared"


PRELOAD = '''"""Loaded once before the scheduler forks, and not by each task: 3 CPU-s."""
import sys

if "scheduler" in sys.argv:
    import airflow.providers.cncf.kubernetes.operators.pod
'''
SQLITE = {"timeout": 30}
"""Connection arguments; ``timeout``: seconds to wait for a lock on the database."""


def free_port(preferred: int) -> int:
    """A free local port: the preferred one, one of the next 19, or any."""
    for port in [*range(preferred, preferred + 20), 0]:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SettingsError("no free port on 127.0.0.1.")


def _write_secret(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(
        path.with_name(f".{path.name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
    )
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    path.with_name(f".{path.name}").replace(path)
