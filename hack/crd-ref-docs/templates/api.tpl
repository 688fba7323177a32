{{- define "gvList" -}}
# API reference

<!-- Generated from the Go types by `make manifests`. -->

`kubectl explain KIND.spec` shows the same fields. The API server enforces every validation rule.
{{ range $gv := . }}
{{- range reverse $gv.SortedKinds }}
{{ template "kind" $gv.TypeForKind . }}
{{- end }}
## Types of fields
{{ range $gv.SortedTypes }}
{{- if and (not .GVK) .References }}
{{ template "type" . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "kind" -}}
## {{ .Name }}

{{ range index .Markers "kubebuilder:resource" -}}
`{{ $.GVK.Group }}/{{ $.GVK.Version }}`, {{ if eq .Scope "Cluster" }}cluster-scoped{{ else }}namespaced{{ end }}, short name `{{ join "`, `" .ShortName }}`.

{{ end -}}
{{ trim .Doc }}

{{ template "fields" . }}
{{- end }}

{{- define "type" -}}
### {{ .Name }}

{{ trim .Doc }}

Used by: {{ range $i, $type := .SortedReferences }}{{ if $i }}, {{ end }}{{ markdownRenderTypeLink $type }}{{ end }}.

{{ if .EnumValues -}}
| Value | Description |
|---|---|
{{ range .EnumValues -}}
| `{{ .Name }}` | {{ template "text" .Doc }} |
{{ end -}}
{{ else -}}
{{ template "fields" . }}
{{- end }}
{{- end }}

{{- define "fields" -}}
| Field | Type | Description | Default | Validation |
|---|---|---|---|---|
{{ range .Members -}}
{{ if ne .Name "metadata" -}}
| `{{ .Name }}` | {{ if eq .Type.Name "UID" }}string{{ else }}{{ markdownRenderType .Type }}{{ end }} | {{ template "text" .Doc }} | {{ with .Default }}`{{ . }}`{{ end }} | {{ template "validation" . }} |
{{ end -}}
{{ end -}}
{{ with index .Markers "kubebuilder:validation:XValidation" }}
Rules for the whole object:
{{ range . }}
- {{ with .FieldPath }}`{{ trimPrefix "." . }}` {{ end }}{{ template "text" .Message }}
{{- end }}
{{ end -}}
{{ end }}

{{- /* MaxLength and MaxItems only limit the cost of rules, and the rules state the real bounds. */ -}}
{{- define "validation" -}}
{{ range .Validation -}}
{{ if eq . "Required: {}" }}Required.<br>
{{- else if not (regexMatch "^(Optional|MaxLength|MaxItems|Enum|items:)" .) }}{{ . }}<br>
{{- end }}
{{- end }}
{{- range index .Markers "kubebuilder:validation:Enum" }}One of `{{ join "`, `" . }}`.<br>{{ end }}
{{- if not .Type.Members }}
{{- range index .Markers "kubebuilder:validation:XValidation" }}{{ template "text" .Message }}.<br>{{ end }}
{{- end }}
{{- range index .Markers "kubebuilder:validation:items:XValidation" }}Each item {{ template "text" .Message }}.<br>{{ end }}
{{- end }}

{{- define "text" -}}
{{ . | trim | replace "\n" " " | replace "|" "\\|" | replace "<" "&lt;" | replace "*" "\\*" }}
{{- end }}
