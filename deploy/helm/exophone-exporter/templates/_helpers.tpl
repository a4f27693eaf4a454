{{- define "exophone.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "exophone.fullname" -}}
{{- $name := include "exophone.name" . }}
{{- $both := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- /* 52: a StatefulSet's pods get a label of its name and ten more characters */}}
{{- default $both .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "exophone.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "exophone.serviceAccountName" -}}
{{- default (ternary (include "exophone.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- define "exophone.image" -}}
{{- with .Values.image }}
{{- with .registry }}{{ . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- define "exophone.selectorLabels" -}}
app.kubernetes.io/name: {{ include "exophone.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "exophone.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The metadata of a resource; takes [root, {suffix, namespace, labels, annotations}]. */}}
{{- define "exophone.metadata" -}}
{{- $root := first . }}
{{- $own := last . -}}
name: {{ include "exophone.fullname" $root }}{{ $own.suffix }}
namespace: {{ default (include "exophone.namespace" $root) $own.namespace }}
labels:
  {{- include "exophone.selectorLabels" $root | nindent 2 }}
  {{- include "exophone.commonLabels" $root | nindent 2 }}
  {{- with $own.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $own.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "exophone.hasTLS" -}}
{{- with .Values.webConfig }}{{ if .tls_server_config }}true{{ end }}{{ end }}
{{- end }}

{{- /* A probe of the kubelet has neither a password nor a certificate: then it only connects. */}}
{{- define "exophone.probe" -}}
{{- $root := first . }}
{{- $web := default dict $root.Values.webConfig }}
{{- $tls := default dict $web.tls_server_config }}
{{- if or $web.basic_auth_users (hasPrefix "Require" (default "" $tls.client_auth_type)) -}}
tcpSocket:
  port: http
{{- else -}}
httpGet:
  path: {{ last . }}
  port: http
  {{- if $tls }}
  scheme: HTTPS
  {{- end }}
{{- end }}
{{- end }}

{{- /* An endpoint of a ServiceMonitor or PodMonitor; takes [root, its values]. */}}
{{- define "exophone.endpoint" -}}
{{- $root := first . -}}
{{- $own := last . -}}
port: http
interval: {{ $own.interval }}
scrapeTimeout: {{ $own.scrapeTimeout }}
honorLabels: {{ $own.honorLabels }}
{{- with default (ternary "https" "" (eq "true" (include "exophone.hasTLS" $root))) $own.scheme }}
scheme: {{ . }}
{{- end }}
{{- range $key := list "tlsConfig" "basicAuth" "relabelings" "metricRelabelings" }}
{{- with index $own $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
