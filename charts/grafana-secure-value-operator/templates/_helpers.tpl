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
{{- with ($.Values.global).imageRegistry | default .registry }}
{{- $name = printf "%s/%s" . $name }}
{{- end }}
{{- if .digest }}
{{- printf "%s@%s" $name .digest }}
{{- else }}
{{- printf "%s:%s" $name (.tag | default $.Chart.AppVersion) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the pods of the chart have in common, the settings of the whole pod apart from its containers. */}}
{{- define "gsvo.pod" -}}
serviceAccountName: {{ include "gsvo.serviceAccountName" . }}
automountServiceAccountToken: {{ .Values.serviceAccount.automount }}
{{- $pullSecrets := .Values.imagePullSecrets }}
{{- range ($.Values.global).imagePullSecrets }}
{{- $pullSecrets = append $pullSecrets (kindIs "string" . | ternary (dict "name" .) .) }}
{{- end }}
{{- with uniq $pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- if .Values.hostNetwork }}
hostNetwork: true
{{- end }}
{{- if not (kindIs "invalid" .Values.hostUsers) }}
hostUsers: {{ .Values.hostUsers }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.dnsPolicy | default (ternary "ClusterFirstWithHostNet" "" .Values.hostNetwork) }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or .Values.extraVolumes .Values.metrics.certificate.secretName (not .Values.serviceAccount.automount) }}
volumes:
{{- if not .Values.serviceAccount.automount }}
- name: service-account-token
  projected:
    sources:
    - serviceAccountToken:
        path: token
    - configMap:
        name: kube-root-ca.crt
        items:
        - key: ca.crt
          path: ca.crt
    - downwardAPI:
        items:
        - path: namespace
          fieldRef:
            fieldPath: metadata.namespace
{{- end }}
{{- with .Values.metrics.certificate.secretName }}
- name: metrics-certificate
  secret:
    secretName: {{ . }}
{{- end }}
{{- with .Values.extraVolumes }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What the containers of the chart have in common. All of them run the manager. */}}
{{- define "gsvo.container" -}}
image: {{ include "gsvo.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command:
- /manager
env:
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- if and (dig "limits" "memory" "" (.Values.resources | default dict)) (not (include "gsvo.hasEnv" (dict "env" .Values.extraEnv "name" "GOMEMLIMIT"))) }}
- name: GOMEMLIMIT
  valueFrom:
    resourceFieldRef:
      resource: limits.memory
{{- end }}
{{- with .Values.extraEnv }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or .Values.extraVolumeMounts .Values.metrics.certificate.secretName (not .Values.serviceAccount.automount) }}
volumeMounts:
{{- if not .Values.serviceAccount.automount }}
- name: service-account-token
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}
{{- if .Values.metrics.certificate.secretName }}
- name: metrics-certificate
  mountPath: /etc/metrics-certificate
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}
{{- end }}

{{/* The flags of the manager that its addresses are not among. */}}
{{- define "gsvo.flags" -}}
{{- with .Values.clusterID }}
- --cluster-id={{ . }}
{{- end }}
{{- with .Values.watch.namespaces }}
- --watch-namespaces={{ join "," . }}
{{- end }}
{{- if not .Values.namespacedConnections }}
- --namespaced-connections=false
{{- end }}
{{- with .Values.allowedHosts }}
- {{ printf "--allowed-hosts=%s" (join "," .) | quote }}
{{- end }}
{{- if .Values.allowInsecureTLS }}
- --allow-insecure-tls
{{- end }}
{{- with .Values.maxConnectionsPerNamespace }}
- --max-connections-per-namespace={{ . }}
{{- end }}
{{- with .Values.maxConcurrentReconciles }}
- --max-concurrent-reconciles={{ . }}
{{- end }}
{{- with .Values.log.level }}
- --zap-log-level={{ . }}
{{- end }}
{{- with .Values.log.encoder }}
- --zap-encoder={{ . }}
{{- end }}
{{- with .Values.extraArgs }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{/* What the schema cannot say. */}}
{{- define "gsvo.validate" -}}
{{- if not .Values.image.repository }}
{{- fail "image.repository is required, for example image.repository=YOUR-REGISTRY/grafana-secure-value-operator: only the chart of a release names its image" }}
{{- end }}
{{- if and (eq .Values.dnsPolicy "None") (not (dig "nameservers" list (.Values.dnsConfig | default dict))) }}
{{- fail "dnsPolicy=None needs dnsConfig.nameservers: otherwise the pods resolve no name" }}
{{- end }}
{{- if and .Values.hostNetwork .Values.networkPolicy.enabled }}
{{- fail "hostNetwork needs networkPolicy.enabled=false: no NetworkPolicy applies to pods in the network of their node" }}
{{- end }}
{{- if and .Values.hostNetwork (eq (toString .Values.hostUsers) "false") }}
{{- fail "hostNetwork and hostUsers=false exclude each other: leave one of them out" }}
{{- end }}
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
{{- if eq (int .Values.metrics.port) 8081 }}
{{- fail "metrics.port=8081 is the port of the probes: take another one" }}
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
{{- with .Values.metrics.serviceMonitor }}
{{- if and .tlsConfig (not $.Values.metrics.secure) }}
{{- fail "metrics.serviceMonitor.tlsConfig is for metrics.secure: otherwise no certificate is shown" }}
{{- end }}
{{- if and .enabled $.Values.metrics.certificate.secretName (not .tlsConfig) (ne (.namespace | default (include "gsvo.namespace" $)) (include "gsvo.namespace" $)) }}
{{- fail "metrics.serviceMonitor.namespace needs metrics.serviceMonitor.tlsConfig with metrics.certificate: prometheus-operator reads the CA in the namespace of the ServiceMonitor" }}
{{- end }}
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
{{- if and .root.Values.rbac.grafanaRef (eq .kind "ClusterRole") }}
- apiGroups:
  - grafana.integreatly.org
  resources:
  - grafanas
  verbs:
  - get
  - list
  - watch
{{- end }}
{{- end }}
