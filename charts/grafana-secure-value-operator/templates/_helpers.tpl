{{- define "gsvo.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "gsvo.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "gsvo.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "gsvo.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{- define "gsvo.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "gsvo.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "gsvo.metricsService" -}}
{{- include "gsvo.fullname" . | trunc 55 }}-metrics
{{- end }}

{{/* The host of the Service of the metrics, which its certificate is for. */}}
{{- define "gsvo.metricsHost" -}}
{{- printf "%s.%s.svc" (include "gsvo.metricsService" .) (include "gsvo.namespace" .) }}
{{- end }}

{{- define "gsvo.selectorLabels" -}}
app.kubernetes.io/name: {{ include "gsvo.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of an object, of (dict "root" $ "extra" labels): those of the chart win over extra, and those over commonLabels. */}}
{{- define "gsvo.labels" -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_")
  "app.kubernetes.io/version" (.root.Chart.AppVersion | toString)
  "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- $labels := merge dict (include "gsvo.selectorLabels" .root | fromYaml) $own (.extra | default dict) .root.Values.commonLabels }}
{{- toYaml $labels }}
{{- end }}

{{- define "gsvo.metadata" -}}
name: {{ .name }}
{{- with .namespace }}
namespace: {{ . }}
{{- end }}
labels:
  {{- include "gsvo.labels" (dict "root" .root "extra" .labels) | nindent 2 }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* "true" if an environment variable is set; of (dict "env" variables "name" name). */}}
{{- define "gsvo.hasEnv" -}}
{{- range .env }}
{{- if eq .name $.name }}true{{ end }}
{{- end }}
{{- end }}

{{- define "gsvo.image" -}}
{{- with .Values.image }}
{{- $name := .repository }}
{{- if .registry }}
{{- $name = printf "%s/%s" .registry .repository }}
{{- end }}
{{- if .digest }}
{{- printf "%s@%s" $name .digest }}
{{- else }}
{{- printf "%s:%s" $name (.tag | default $.Chart.AppVersion) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the schema cannot say. */}}
{{- define "gsvo.validate" -}}
{{- with .Values.watch.namespaces }}
{{- if not $.Values.clusterID }}
{{- fail "watch.namespaces needs clusterID: any label value that no other cluster with the same Grafana has" }}
{{- end }}
{{- if not $.Values.namespacedConnections }}
{{- fail "watch.namespaces serves GrafanaConnections alone, and namespacedConnections=false serves none: leave one of them out" }}
{{- end }}
{{- if and $.Values.metrics.enabled $.Values.metrics.secure }}
{{- fail "metrics.secure needs a ClusterRole, and watch.namespaces makes none: set metrics.enabled=false, or metrics.secure=false" }}
{{- end }}
{{- end }}
{{- if and .Values.watch.namespaces (or .Values.admissionPolicies.allowedURLs .Values.admissionPolicies.denyAdopt .Values.admissionPolicies.maxMetadataBytes) }}
{{- fail "admissionPolicies are of the cluster, and watch.namespaces makes nothing outside of namespaces: leave them out" }}
{{- end }}
{{- if not (or .Values.serviceAccount.create .Values.serviceAccount.name) }}
{{- fail "serviceAccount.create=false needs serviceAccount.name: the rights of the manager are bound to it" }}
{{- end }}
{{- if and .Values.metrics.readers (not (and .Values.metrics.enabled .Values.metrics.secure)) }}
{{- fail "metrics.readers is for metrics.enabled with metrics.secure: otherwise whoever can reach the metrics may read them" }}
{{- end }}
{{- with .Values.metrics.certificate }}
{{- if and .secretName (not (and $.Values.metrics.enabled $.Values.metrics.secure)) }}
{{- fail "metrics.certificate is for metrics.enabled with metrics.secure: otherwise no certificate is shown" }}
{{- end }}
{{- if and .issuerRef (not .secretName) }}
{{- fail "metrics.certificate.issuerRef needs metrics.certificate.secretName: the Secret that cert-manager writes" }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.enabled) }}
{{- fail "metrics.serviceMonitor needs metrics.enabled" }}
{{- end }}
{{- end }}

{{- define "gsvo.subject" -}}
- kind: ServiceAccount
  name: {{ include "gsvo.serviceAccountName" . }}
  namespace: {{ include "gsvo.namespace" . }}
{{- end }}

{{/* The rules of the manager's role of a kind, as files/role.yaml has them; of (dict "root" $ "kind" kind "namespaced" bool).
     namespaced leaves out what is not in a namespace. */}}
{{- define "gsvo.managerRules" -}}
{{- $root := . }}
{{- range .root.Files.Get "files/role.yaml" | splitList "---\n" }}
{{- $role := fromYaml . }}
{{- if eq ($role.kind | default "") $root.kind }}
{{- range $role.rules }}
{{- $resources := .resources }}
{{- if $root.namespaced }}
{{- $resources = without .resources "namespaces" "clustergrafanaconnections" "clustergrafanaconnections/status" }}
{{- end }}
{{- if $resources }}
{{- list (set . "resources" $resources) | toYaml | nindent 0 }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
