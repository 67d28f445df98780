"""Is the store up, and does it refuse strangers?"""

import os
import sys
import urllib.error
import urllib.request

uri = os.environ["AWS_ENDPOINT_URL"]
with urllib.request.urlopen(uri + "/healthz", timeout=30) as answer:
    print(f"{uri}/healthz: {answer.status}")
for bucket in os.environ["BUCKETS"].split():
    try:
        urllib.request.urlopen(f"{uri}/{bucket}", timeout=30)
    except urllib.error.HTTPError as error:
        if error.code != 403:
            sys.exit(f"{uri}/{bucket}: expected 403 without a key, got {error.code}")
    else:
        sys.exit(f"{uri}/{bucket} is open to everybody")
print("no bucket is open to strangers")
