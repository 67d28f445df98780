# Installs the project into the environment of the image $1, and writes the image's bill of
# materials.
set -eu
/run/tools/uv pip install --quiet --python /opt/fedrisk/bin/python --no-cache --offline --no-deps \
    --compile-bytecode /run/project/*.whl
python /run/project/sbom.py /run/lock.json /opt/fedrisk/sbom.json "$1"
rm -f /opt/fedrisk/.lock
