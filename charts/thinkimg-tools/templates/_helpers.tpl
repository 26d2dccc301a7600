{{- define "tools.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: thinkimg
{{- end }}

{{- define "tools.gateway.name" -}}
{{ printf "%s-gateway" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tools.gateway.selector" -}}
app.kubernetes.io/name: thinkimg-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tools.gateway.labels" -}}
app.kubernetes.io/name: thinkimg-gateway
{{ include "tools.labels" . }}
{{- end }}

{{- define "tools.test.selector" -}}
app.kubernetes.io/name: thinkimg-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tools.image" -}}
{{ .Values.gateway.image.repository }}:{{ .Values.gateway.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Secret with the key of the tool servers. */}}
{{- define "tools.auth.secret" -}}
{{ .Values.auth.existingSecret | default (printf "%s-tool-key" .Release.Name) }}
{{- end }}

{{/* Secret with the gateway's keys.json. */}}
{{- define "tools.gateway.keys" -}}
{{ .Values.gateway.keys.existingSecret | default (printf "%s-keys" (include "tools.gateway.name" .)) }}
{{- end }}

{{/* Names of the tools that are made, in order. */}}
{{- define "tools.enabled" -}}
{{- range $name, $tool := .Values.tools }}{{ if dig "enabled" true $tool }}{{ $name }} {{ end }}{{ end }}
{{- end }}

{{/* The headless Service of a tool, as the operator names it (render.child_name). */}}
{{- define "tools.headless" -}}
{{- if le (len .) 58 }}{{ . }}-pods{{ else }}{{ . | trunc 49 | trimSuffix "-" }}-{{ . | sha256sum | trunc 8 }}-pods{{ end }}
{{- end }}

{{- define "tools.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tools.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
