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

{{/* A list of texts as CEL writes it. */}}
{{- define "operator.admission.list" -}}
[{{- range $index, $one := . }}{{ if $index }}, {{ end }}'{{ $one }}'{{ end }}]
{{- end }}

{{/* `rule` of every object at `path`, such as spec.stages[].grpo; LEVEL in it is the object. Where there is none, it holds. */}}
{{- define "operator.admission" -}}
{{- $at := "variables.spec" }}
{{- $before := "" }}
{{- $after := "" }}
{{- range $index, $step := splitList "." .path }}
{{- if $index }}
{{- $name := trimSuffix "[]" $step }}
{{- $before = printf "%s(!has(%s.%s) || " $before $at $name }}
{{- $after = printf ")%s" $after }}
{{- $at = printf "%s.%s" $at $name }}
{{- if hasSuffix "[]" $step }}
{{- $before = printf "%s%s.all(one%d, " $before $at $index }}
{{- $after = printf ")%s" $after }}
{{- $at = printf "one%d" $index }}
{{- end }}
{{- end }}
{{- end }}
{{- printf "%s%s%s" $before (replace "LEVEL" $at .rule) $after }}
{{- end }}
