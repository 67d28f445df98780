# SeaweedFS with only its S3 port open to the network: its own ports need no key, so they listen on
# the loopback, and the S3 server's gRPC port, which cannot, requires a client certificate that does
# not exist (WEED_GRPC_*). A watcher creates missing buckets and makes the server, which is process
# 1, reload changed identities.
set -eu
identities=/etc/seaweedfs/identities/s3.json
buckets=/etc/seaweedfs/buckets/buckets

shell() { timeout 20 weed shell -master=127.0.0.1:9333 2>&1; }

watch() {
  known=$(md5sum <"$identities") || known=
  made=
  while :; do
    # The file may be missing for a moment while its secret is replaced.
    now=$(md5sum <"$identities") || { sleep 1; continue; }
    if [ "$now" != "$known" ]; then
      known=$now
      echo "identities have changed: reading them again"
      kill -HUP 1
    fi
    wanted=$(cat "$buckets") || { sleep 1; continue; }
    if [ "$wanted" != "$made" ]; then
      have=$(echo s3.bucket.list | shell | awk '{print $1}') || have=
      missing=
      for bucket in $wanted; do
        if ! echo "$have" | grep -qxF "$bucket"; then
          missing="$missing $bucket"
          echo "s3.bucket.create -name $bucket" | shell || true
        fi
      done
      if [ -z "$missing" ]; then
        made=$wanted
        touch /tmp/buckets
        echo "buckets:" $wanted
      else
        sleep 1
        continue
      fi
    fi
    sleep 5
  done
}

rm -f /tmp/buckets
watch &
exec weed -logtostderr=true server -dir=/data -ip=127.0.0.1 -ip.bind=127.0.0.1 \
  -volume.max=0 -master.volumeSizeLimitMB="$VOLUME_SIZE_LIMIT_MB" -volume.preStopSeconds=1 \
  -master.telemetry=false -metricsIp=0.0.0.0 -metricsPort=9327 -filer \
  -s3 -s3.ip.bind=0.0.0.0 -s3.config="$identities" -s3.iam=false \
  -s3.port.iceberg=0 -s3.port.lance=0
