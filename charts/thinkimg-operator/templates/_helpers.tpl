{{- define "operator.serviceAccount" -}}
{{ .Values.serviceAccount.name | default .Release.Name }}
{{- end }}

{{- define "operator.selector" -}}
app.kubernetes.io/name: thinkimg-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "operator.labels" -}}
{{ include "operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: thinkimg
{{- end }}

{{- define "operator.rules" -}}
{{ .Files.Get "files/rules.yaml" }}
{{- if .Values.serviceMonitors }}
{{ .Files.Get "files/monitoring-rules.yaml" }}
{{- end }}
{{- end }}

{{/* Where the project's images are: beside the operator's. */}}
{{- define "operator.imagePrefix" -}}
{{- $folder := dir .Values.image.repository }}
{{- if ne $folder "." }}{{ $folder }}/{{ end }}
{{- end }}
