# Installs an image's part of the lock, bound to /run/requirements.txt, into its environment.
set -eu
. /run/tools/network.sh
python=/opt/fedrisk/bin/python
[ -x "$python" ] || /run/tools/uv venv --quiet --python /usr/local/bin/python3 /opt/fedrisk
/run/tools/uv pip install --quiet --python "$python" --no-deps --require-hashes \
    --requirement /run/requirements.txt
rm -f /opt/fedrisk/.lock /opt/fedrisk/.gitignore
