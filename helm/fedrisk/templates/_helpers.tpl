{{/* Names are fixed (docs/deployment.md): one release per namespace. */}}

{{- define "fedrisk.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: fedrisk
{{ include "fedrisk.selector" . }}
{{- end }}

{{/* Also the labels of pods, so without a version, which would restart all pods with each chart. */}}
{{- define "fedrisk.selector" -}}
app.kubernetes.io/name: fedrisk
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .hospital }}
fedrisk.io/hospital: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "fedrisk.tag" -}}
{{ .Values.images.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The launcher's FEDRISK_IMAGES, with the placeholder {image}. */}}
{{- define "fedrisk.images" -}}
{{ with .Values.images.registry }}{{ . | trimSuffix "/" }}/{{ end }}fedrisk-{image}:{{ include "fedrisk.tag" . }}
{{- end }}

{{- define "fedrisk.image" -}}
{{ include "fedrisk.images" .root | replace "{image}" .image }}{{ with index .root.Values.images.digests .image }}@{{ . }}{{ end }}
{{- end }}

{{/* Host names of the SuperLink and of the server pods of runs, starting with the certificate's CN. */}}
{{- define "fedrisk.names" -}}
{{- $ns := .Release.Namespace -}}
{{- $names := list "fedrisk-superlink" (printf "fedrisk-superlink.%s" $ns) (printf "fedrisk-superlink.%s.svc" $ns) (printf "fedrisk-superlink.%s.svc.cluster.local" $ns) (printf "*.fedrisk-run.%s.svc.cluster.local" $ns) "localhost" -}}
{{- concat $names .Values.tls.names | uniq | toJson -}}
{{- end }}

{{/* Its addresses. The SuperLink's dispatcher connects over the loopback and checks the certificate. */}}
{{- define "fedrisk.addresses" -}}
{{- concat (list "127.0.0.1") .Values.tls.addresses | uniq | toJson -}}
{{- end }}

{{/* Whether this release serves hospitals: with the standing SuperLink or the server pods of runs.
     Where superlink.address is set, the CA of that SuperLink is the one to trust. */}}
{{- define "fedrisk.serves" -}}
{{- if or .Values.superlink.enabled (and .Values.airflow.enabled (not .Values.superlink.address)) -}}true{{- end -}}
{{- end }}

{{/* The CA of tls.mode `generate`, as JSON: the release's, or a new one. Cached in the values, because
     a second call would generate another. lookup finds nothing under `helm template` and client-side
     dry runs: they show a new CA each time, which is never installed. */}}
{{- define "fedrisk.authority" -}}
{{- if not (hasKey .Values "madeAuthority") -}}
{{- $found := lookup "v1" "Secret" .Release.Namespace "fedrisk-authority" -}}
{{- if $found -}}
{{- $_ := set .Values "madeAuthority" (dict "Cert" (index $found.data "tls.crt" | b64dec) "Key" (index $found.data "tls.key" | b64dec) "new" false) -}}
{{- else -}}
{{- $made := genCA (printf "fedrisk CA of %s" .Release.Namespace) 3650 -}}
{{- $_ := set .Values "madeAuthority" (dict "Cert" $made.Cert "Key" $made.Key "new" true) -}}
{{- end -}}
{{- end -}}
{{- .Values.madeAuthority | toJson -}}
{{- end }}

{{/* The certificate of the CA that hospitals trust, if this chart has it. */}}
{{- define "fedrisk.ca" -}}
{{- if and (include "fedrisk.serves" .) (eq .Values.tls.mode "generate") -}}
{{- (include "fedrisk.authority" . | fromJson).Cert -}}
{{- else -}}
{{- .Values.tls.caCertificate -}}
{{- end -}}
{{- end }}

{{- define "fedrisk.superlink" -}}
{{- if .Values.superlink.enabled -}}
fedrisk-superlink:9092
{{- else -}}
{{- required "superlink.address: say where the SuperLink is (host:port), for superlink.enabled is false and a SuperNode is enabled" .Values.superlink.address -}}
{{- end -}}
{{- end }}

{{- define "fedrisk.endpoint" -}}
{{- if .Values.s3.enabled -}}http://fedrisk-s3:8333{{- else -}}{{ .Values.store.endpoint }}{{- end -}}
{{- end }}

{{- define "fedrisk.bucket" -}}
{{- regexReplaceAll "^s3a?://([^/]+).*$" . "${1}" -}}
{{- end }}

{{- define "fedrisk.tracking" -}}
{{- if .Values.mlflow.enabled -}}http://fedrisk-mlflow:5000{{- else -}}{{ .Values.mlflow.uri }}{{- end -}}
{{- end }}

{{/* Settings of all pods; pods that get them in their environment have a checksum of them. */}}
{{- define "fedrisk.settings" -}}
FEDRISK_STORE: {{ .Values.store.runs | quote }}
FEDRISK_LAKE: {{ .Values.store.lake | quote }}
FEDRISK_FEDERATION: {{ .Values.settings.federation | quote }}
{{- with include "fedrisk.tracking" . }}
FEDRISK_MLFLOW_URI: {{ . | quote }}
{{- end }}
AWS_REGION: {{ .Values.store.region | quote }}
{{- with include "fedrisk.endpoint" . }}
AWS_ENDPOINT_URL: {{ . | quote }}
{{- if hasPrefix "http://" . }}
AWS_ALLOW_HTTP: "true"
{{- end }}
{{- end }}
{{- range $key, $value := .Values.settings.extra }}
{{ $key }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* Common to all pods. Service links are off: Kubernetes would add variables such as
     FEDRISK_MLFLOW_PORT for our services, and fedrisk rejects unknown FEDRISK_* settings. */}}
{{- define "fedrisk.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- include "fedrisk.pullSecrets" . }}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "fedrisk.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{/* A ServiceMonitor, where the cluster has Prometheus' operator. */}}
{{- define "fedrisk.monitor" -}}
{{- $monitoring := .root.Values.monitoring }}
{{- if and $monitoring.enabled (.root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") }}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: fedrisk-{{ .component }}
  labels:
    {{- include "fedrisk.labels" . | nindent 4 }}
    {{- with $monitoring.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "fedrisk.selector" . | nindent 6 }}
  endpoints:
    - {port: {{ .port }}, path: /metrics, interval: {{ $monitoring.interval }}}
{{- end }}
{{- end }}

{{- define "fedrisk.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* An owner's key. Only these two keys of its secret: envFrom would add node.key to the environment
     too. */}}
{{- define "fedrisk.credentials" -}}
{{- if eq .root.Values.store.credentials "secrets" }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ .secret | quote }}, key: AWS_ACCESS_KEY_ID}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ .secret | quote }}, key: AWS_SECRET_ACCESS_KEY}}
{{- end }}
{{- end }}

{{- define "fedrisk.claim" -}}
- metadata:
    name: {{ .name }}
    labels:
      {{- include "fedrisk.selector" . | nindent 6 }}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with .storage.storageClass }}
    storageClassName: {{ . | quote }}
    {{- end }}
    resources: {requests: {storage: {{ .storage.size }}}}
{{- end }}

{{/* Kubernetes' default (OrderedReady) never replaces a pod that does not become ready, even when an
     upgrade or a rollback changes it. With both policies there is one pod of a name at a time. */}}
{{- define "fedrisk.management" -}}
podManagementPolicy: Parallel
{{- end }}

{{- define "fedrisk.retention" -}}
persistentVolumeClaimRetentionPolicy:
  whenDeleted: {{ .Values.volumes.whenDeleted }}
  whenScaled: Retain
{{- end }}

{{- define "fedrisk.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priority }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Egress to the shared store, at least that of the runs. There is no default, because any default
     would open more than the store in some cluster. */}}
{{- define "fedrisk.storeEgress" -}}
{{- if .Values.s3.enabled }}
- to:
    - podSelector:
        matchLabels: {app.kubernetes.io/name: fedrisk, app.kubernetes.io/component: s3}
  ports: [{port: 8333, protocol: TCP}]
{{- else if .Values.networkPolicy.store }}
{{ toYaml .Values.networkPolicy.store }}
{{- else }}
{{- fail "networkPolicy.store: say at which addresses the store is, for example [{to: [{ipBlock: {cidr: 192.0.2.0/28}}], ports: [{port: 443}]}]; in a hospital's own cluster hospitals.H.store does as well. What is not said stays closed (0.0.0.0/0 would open everything at that port), and networkPolicy.enabled: false leaves all policies out" }}
{{- end }}
{{- end }}

{{/* Airflow's pods as a peer. */}}
{{- define "fedrisk.airflowPeer" -}}
- podSelector:
    {{- toYaml .Values.airflow.podSelector | nindent 4 }}
  {{- with .Values.airflow.namespaceSelector }}
  namespaceSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Egress to the SuperLink of another cluster. */}}
{{- define "fedrisk.superlinkEgress" -}}
{{- if and (not .Values.superlink.enabled) .Values.superlink.address }}
{{- $host := regexReplaceAll ":[0-9]+$" .Values.superlink.address "" }}
{{- $cidrs := .Values.networkPolicy.superlink.cidrs }}
{{- if and (not $cidrs) (regexMatch "^[0-9]+([.][0-9]+){3}$" $host) }}
{{- $cidrs = list (printf "%s/32" $host) }}
{{- end }}
{{- if not $cidrs }}
{{- fail (printf "networkPolicy.superlink.cidrs: say which addresses %s has, for example [198.51.100.10/32]; policies know no names. 0.0.0.0/0 allows any address at its port, and networkPolicy.enabled: false leaves all policies out" $host) }}
{{- end }}
- ports: [{port: {{ regexReplaceAll "^.*:" .Values.superlink.address "" }}, protocol: TCP}]
  to:
    {{- range $cidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
{{- end }}
{{- end }}

{{/* All buckets of the in-cluster S3: of runs, of hospitals and of s3.buckets. */}}
{{- define "fedrisk.buckets" -}}
{{- $buckets := list (include "fedrisk.bucket" .Values.store.runs) -}}
{{- $lake := include "fedrisk.bucket" .Values.store.lake -}}
{{- range $name, $_ := .Values.hospitals -}}
{{- $buckets = append $buckets ($lake | replace "{hospital}" $name) -}}
{{- end -}}
{{- concat $buckets .Values.s3.buckets | uniq | toJson -}}
{{- end }}
