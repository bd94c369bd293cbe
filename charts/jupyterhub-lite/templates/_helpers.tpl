{{/*
What names and selects an object. `app`, `release` and `component` are what Zero to JupyterHub
selects by: with the same selectors one chart can take over the other's objects in place.
Scope: (dict "root" $ "component" "hub")
*/}}
{{- define "select" -}}
app: jupyterhub
release: {{ .root.Release.Name | quote }}
component: {{ .component }}
{{- end }}

{{/* On pods; without the chart's version, which would restart the proxy with each one. */}}
{{- define "podLabels" -}}
{{ include "select" . }}
app.kubernetes.io/name: jupyterhub
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "labels" -}}
{{ include "podLabels" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{/*
The values as the hub reads them, with the release's own names.
*/}}
{{- define "values" -}}
{{- $chart := dict "Name" .Chart.Name "Version" .Chart.Version }}
{{- $release := dict "Name" .Release.Name "Namespace" .Release.Namespace }}
{{- merge (dict "Chart" $chart "Release" $release) .Values | toYaml }}
{{- end }}

{{/*
`env` entries from a mapping of names to a string or to what a Kubernetes EnvVar holds.
*/}}
{{- define "env" -}}
{{- range $name, $value := . }}
{{- if kindIs "map" $value }}
- {{ merge (dict "name" $name) $value | toJson }}
{{- else }}
- {{ dict "name" $name "value" $value | toJson }}
{{- end }}
{{- end }}
{{- end }}

{{/*
One NetworkPolicy. Scope: (dict "root" $ "component" "hub" "policy" .Values.hub.networkPolicy
"ports" (dict "http" 8081) "access" (list (dict "label" "hub" "port" 8081))
"reach" (list (dict "component" "proxy" "port" 8001)))
*/}}
{{- define "networkPolicy" -}}
{{- $root := .root }}
{{- $policy := .policy }}
{{- $ports := .ports }}
{{- $allow := $policy.egressAllowRules }}
{{- $metadata := printf "%s/32" .root.Values.singleuser.cloudMetadata.ip }}
{{- $private := list "10.0.0.0/8" "172.16.0.0/12" "192.168.0.0/16" }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ .name | default .component }}
  labels: {{- include "labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "select" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    {{- with $policy.allowedIngressPorts }}
    - ports:
        {{- range . }}
        - port: {{ get $ports (toString .) | default . }}
        {{- end }}
    {{- end }}
    {{- range .access }}
    - ports:
        - port: {{ .port }}
      from:
        - podSelector:
            matchLabels:
              hub.jupyter.org/network-access-{{ .label }}: "true"
          {{- if eq $policy.interNamespaceAccessLabels "accept" }}
          namespaceSelector: {}
        - namespaceSelector:
            matchLabels:
              hub.jupyter.org/network-access-{{ .label }}: "true"
          {{- end }}
    {{- end }}
    {{- with $policy.ingress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  egress:
    {{- range .reach }}
    - to:
        - podSelector:
            matchLabels: {{- include "select" (dict "root" $root "component" .component) | nindent 14 }}
      ports:
        - port: {{ .port }}
    {{- end }}
    {{- $dns := list }}
    {{- if $allow.dnsPortsCloudMetadataServer }}
    {{- $dns = append $dns (dict "ipBlock" (dict "cidr" $metadata)) }}
    {{- end }}
    {{- if $allow.dnsPortsKubeSystemNamespace }}
    {{- $system := dict "kubernetes.io/metadata.name" "kube-system" }}
    {{- $dns = append $dns (dict "namespaceSelector" (dict "matchLabels" $system)) }}
    {{- end }}
    {{- if $allow.dnsPortsPrivateIPs }}
    {{- range $private }}
    {{- $dns = append $dns (dict "ipBlock" (dict "cidr" .)) }}
    {{- end }}
    {{- end }}
    {{- with $dns }}
    - ports:
        - port: 53
          protocol: UDP
        - port: 53
          protocol: TCP
      to: {{- toYaml . | nindent 8 }}
    {{- end }}
    {{- if $allow.nonPrivateIPs }}
    - to:
        - ipBlock:
            cidr: 0.0.0.0/0
            except: {{- append $private $metadata | toYaml | nindent 14 }}
    {{- end }}
    {{- if $allow.privateIPs }}
    - to:
        {{- range $private }}
        - ipBlock:
            cidr: {{ . }}
        {{- end }}
    {{- end }}
    {{- if $allow.cloudMetadataServer }}
    - to:
        - ipBlock:
            cidr: {{ $metadata }}
    {{- end }}
    {{- with $policy.egress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/*
One PodDisruptionBudget. Scope: (dict "root" $ "component" "hub" "pdb" .Values.hub.pdb)
*/}}
{{- define "pdb" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .component }}
  labels: {{- include "labels" . | nindent 4 }}
spec:
  {{- if kindIs "invalid" .pdb.maxUnavailable }}
  minAvailable: {{ .pdb.minAvailable }}
  {{- else }}
  maxUnavailable: {{ .pdb.maxUnavailable }}
  {{- end }}
  selector:
    matchLabels: {{- include "select" . | nindent 6 }}
{{- end }}
