"""Health check of an Airflow process without a port, from the API server's health endpoint.

``python health.py triggerer`` or ``python health.py dag_processor``.
"""

from __future__ import annotations

import json
import sys
import urllib.request

URL = "http://api-server:8080/api/v2/monitor/health"

if __name__ == "__main__":
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(URL, timeout=8) as answer:
        status = json.loads(answer.read())[sys.argv[1]]["status"]
    sys.exit(0 if status == "healthy" else f"{sys.argv[1]} is {status}")
