# Sourced by the RUN lines that fetch something. Package index, proxy and certificates come as build
# secrets (images/build.py passes the environment's), so that no layer and no history names a host.
if [ -f /run/secrets/network ]; then
    set -a
    . /run/secrets/network
    set +a
fi
if [ -f /run/secrets/certificates ]; then
    for name in SSL_CERT_FILE PIP_CERT REQUESTS_CA_BUNDLE CURL_CA_BUNDLE; do
        export "$name=/run/secrets/certificates"
    done
fi
# uv reads no pip.conf; where only pip has an index, it is uv's too.
index="${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2>/dev/null || true)}}"
if [ -n "$index" ]; then
    export UV_DEFAULT_INDEX="$index"
fi
export UV_CACHE_DIR=/run/cache UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_PROGRESS=1
export UV_PYTHON_DOWNLOADS=never PIP_DISABLE_PIP_VERSION_CHECK=1
