"""Check that the store is up and refuses requests without a key."""

import os
import sys
import time
import urllib.error
import urllib.request

uri = os.environ["AWS_ENDPOINT_URL"]
deadline = time.monotonic() + 90


def status(path: str) -> int:
    while True:
        try:
            with urllib.request.urlopen(uri + path, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"{uri} does not answer: {error}")
            time.sleep(2)


if status("/healthz") != 200:
    sys.exit(f"{uri}/healthz: {status('/healthz')}, expected 200")
for bucket in os.environ["BUCKETS"].split():
    found = status(f"/{bucket}")
    if found != 403:
        sys.exit(f"{uri}/{bucket}: expected 403 without a key, got {found}")
print(f"{uri} is healthy and opens no bucket without a key")
