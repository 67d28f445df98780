"""Check that MLflow is healthy, answers under the name that steps use, and refuses others."""

import json
import os
import sys
import time
import urllib.error
import urllib.request

uri = os.environ["FEDRISK_MLFLOW_URI"]
deadline = time.monotonic() + 90


def get(path: str, **headers: str) -> bytes:
    request = urllib.request.Request(uri + path, headers=headers)
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.read()
        except urllib.error.HTTPError:
            raise
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"{uri} does not answer: {error}")
            time.sleep(2)


if get("/health") != b"OK":
    sys.exit(f"{uri}/health does not say OK")
found = json.loads(get("/api/2.0/mlflow/experiments/search?max_results=1"))
print(f"{uri} is healthy and knows experiment {found['experiments'][0]['name']!r}")
try:
    get("/api/2.0/mlflow/experiments/search?max_results=1", Host="elsewhere.invalid")
except urllib.error.HTTPError as error:
    if error.code != 403:
        raise
else:
    sys.exit(f"{uri} answers to any Host header: MLFLOW_SERVER_ALLOWED_HOSTS is not in force")
