{{/*
Names are fixed: a cluster has one Muster, since its gate, its webhook and its custom resources are one for all.
*/}}
{{- define "muster.selector" -}}
app.kubernetes.io/name: muster
{{- end }}

{{- define "muster.labels" -}}
{{ include "muster.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "muster.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "muster.certManager" -}}
{{- if eq .Values.certificates.source "cert-manager" }}true{{ end -}}
{{- end }}

{{/* muster.yaml: the user's keys, over the defaults in a cluster, under what has to fit the other objects */}}
{{- define "muster.config" -}}
{{- $webhook := dict "registration" "ca-bundle" "shutdownDelay" "5s" -}}
{{- if include "muster.certManager" . -}}
{{- $files := dict "certFile" "/etc/muster-tls/tls.crt" "keyFile" "/etc/muster-tls/tls.key" -}}
{{- $webhook = dict "registration" "none" "shutdownDelay" "5s" "certificates" $files -}}
{{- end -}}
{{- $fixed := dict
  "namespace" .Release.Namespace
  "webhook" (dict "host" "0.0.0.0" "port" 8443 "service" "muster")
  "management" (dict "host" "0.0.0.0" "port" 8484) -}}
{{- $history := dict "path" "/var/lib/muster/history.db" "peers" "http://muster:8484" -}}
{{- $queues := dict "file" "/etc/muster-queues/queues.yaml" -}}
{{- $defaults := dict "webhook" $webhook "history" $history "queues" $queues -}}
{{- toYaml (mergeOverwrite $defaults (deepCopy .Values.config) $fixed) -}}
{{- end }}

{{- define "muster.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "muster.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/*
Of an object of the hook before an uninstall, with its weight. Labels of its own: the Job's pod must not become an
endpoint of the Service.
*/}}
{{- define "muster.withdraw.metadata" -}}
{{- $root := index . 0 -}}
name: muster-withdraw
labels:
  {{- include "muster.labels" $root | replace "name: muster" "name: muster-withdraw" | nindent 2 }}
annotations:
  helm.sh/hook: pre-delete
  helm.sh/hook-weight: {{ index . 1 | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
