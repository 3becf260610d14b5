{{/* Names leave room for the suffix "-metrics" within 63 characters. */}}
{{- define "tidegate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 54 | trimSuffix "-" -}}
{{- end -}}

{{- define "tidegate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" -}}
{{- else if contains (include "tidegate.name" .) .Release.Name -}}
{{- .Release.Name | trunc 54 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tidegate.name" .) | trunc 54 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Cluster-scoped objects carry the namespace, so that two releases of one name do not meet. */}}
{{- define "tidegate.clusterName" -}}
{{- printf "%s:%s" (include "tidegate.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- define "tidegate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tidegate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tidegate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "tidegate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tidegate
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "tidegate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tidegate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: required where serviceAccount.create is false; the namespace's default account must not get the daemon's rights" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "tidegate.image" -}}
{{- $image := .Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end -}}
{{- $image.repository }}:{{ default .Chart.AppVersion $image.tag -}}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* The namespaces that the configuration names, as JSON, each once; [] is all. null is unset, as for the daemon. */}}
{{- define "tidegate.namespaces" -}}
{{- (.Values.config.watch | default dict).namespaces | default list | uniq | toJson -}}
{{- end -}}

{{/* The Lease that the daemons of this release elect their leader by, as the daemon reads it. null is unset. */}}
{{- define "tidegate.leaseName" -}}
{{- (.Values.config.leaderElection | default dict).resourceName | default (include "tidegate.fullname" .) -}}
{{- end -}}

{{- define "tidegate.leaseNamespace" -}}
{{- (.Values.config.leaderElection | default dict).resourceNamespace | default .Release.Namespace -}}
{{- end -}}

{{/* The document of the daemon: what the operator wrote, and the Lease's name where it is not the daemon's default. */}}
{{- define "tidegate.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $name := include "tidegate.leaseName" . -}}
{{- if ne $name "tidegate" -}}
{{- $election := merge (dict "resourceName" $name) ($config.leaderElection | default dict) -}}
{{- $config = set $config "leaderElection" $election -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* What a running daemon cannot take from a changed file; everything else applies without a restart. */}}
{{- define "tidegate.restartKeys" -}}
{{- $config := .Values.config -}}
{{- $log := pick ($config.log | default dict) "format" -}}
{{- $scrape := pick ($config.scrape | default dict) "concurrency" -}}
{{- merge (pick $config "api" "watch" "leaderElection" "signals") (dict "log" $log "scrape" $scrape) | toYaml -}}
{{- end -}}

{{/* The port of the daemon's pages. A loopback address would have the kubelet restart the pod for ever. */}}
{{- define "tidegate.port" -}}
{{- $api := .Values.config.api | default dict -}}
{{- $bind := $api.bind | default "0.0.0.0" -}}
{{- if or (hasPrefix "127." $bind) (eq "::1" $bind) -}}
{{- fail (printf "config.api.bind: %s cannot be reached by the kubelet's probes; allowed here: 0.0.0.0 or ::" $bind) -}}
{{- end -}}
{{- $api.port | default 8080 -}}
{{- end -}}

{{/*
The operator's variables. The client for the API server obeys proxy variables, so where there are any, the API server is
excepted: $(KUBERNETES_SERVICE_HOST) is filled in by the kubelet. A list of the operator's is kept and extended.
*/}}
{{- define "tidegate.extraEnv" -}}
{{- $proxied := false -}}
{{- $excepted := false -}}
{{- range .Values.extraEnv -}}
{{- $name := lower .name -}}
{{- if regexMatch "^tidegate__(watch|api|leaderelection|leader_election|targetkinds|target_kinds)(__|$)" $name -}}
{{- fail (printf "extraEnv: %s: set it in config instead; the rights, the probes and the port follow config alone" .name) -}}
{{- else if has .name (list "POD_NAME" "POD_NAMESPACE" "POD_UID") -}}
{{- fail (printf "extraEnv: %s: the chart sets it; remove it here" .name) -}}
{{- end -}}
{{- if has $name (list "http_proxy" "https_proxy" "all_proxy") -}}{{- $proxied = true -}}{{- end -}}
{{- if eq $name "no_proxy" -}}{{- $excepted = true -}}{{- end -}}
{{- end -}}
{{- $variables := list -}}
{{- range .Values.extraEnv -}}
{{- if and $proxied (eq (lower .name) "no_proxy") (not .valueFrom) -}}
{{- $list := list .value "$(KUBERNETES_SERVICE_HOST)" | compact | join "," -}}
{{- $variables = append $variables (dict "name" .name "value" $list) -}}
{{- else -}}
{{- $variables = append $variables . -}}
{{- end -}}
{{- end -}}
{{- if and $proxied (not $excepted) -}}
{{- $variables = append $variables (dict "name" "NO_PROXY" "value" "$(KUBERNETES_SERVICE_HOST)") -}}
{{- end -}}
{{- with $variables }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* Kinds that workloads may name by targetRef, as JSON: the configuration's, else the daemon's own default. */}}
{{- define "tidegate.targetKinds" -}}
{{- $default := list
      (dict "apiVersion" "apps/v1" "kind" "Deployment" "resource" "deployments")
      (dict "apiVersion" "apps/v1" "kind" "StatefulSet" "resource" "statefulsets")
      (dict "apiVersion" "leaderworkerset.x-k8s.io/v1" "kind" "LeaderWorkerSet" "resource" "leaderworkersets") -}}
{{- $kinds := .Values.config.targetKinds -}}
{{- if kindIs "invalid" $kinds }}{{ $default | toJson }}{{ else }}{{ $kinds | toJson }}{{ end -}}
{{- end -}}

{{/* Not empty where some node pool is told by labels of its nodes, which the daemon then reads. */}}
{{- define "tidegate.readsNodes" -}}
{{- range (.Values.config | default dict).nodePools }}{{ if .nodeSelector }}true{{ end }}{{ end -}}
{{- end -}}

{{/* What the daemon does, verb by verb. Nothing else; tests/chart holds it against the API server. */}}
{{- define "tidegate.rules" -}}
- apiGroups: [tidegate.dev]
  resources: [inferenceworkloads]
  verbs: [get, list, watch]
- apiGroups: [tidegate.dev]
  resources: [inferenceworkloads/status]
  verbs: [patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete] # patch: a new leader stamps its epoch; delete: after an update
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [get, patch]
- apiGroups: [leaderworkerset.x-k8s.io]
  resources: [leaderworkersets]
  verbs: [get, list, watch, create, patch, delete] # likewise; LeaderWorkerSet need not be installed
- apiGroups: [leaderworkerset.x-k8s.io]
  resources: [leaderworkersets/scale]
  verbs: [get, patch]
{{- range include "tidegate.targetKinds" . | fromJsonArray }}
{{- $group := "" }}
{{- if contains "/" .apiVersion }}{{ $group = splitList "/" .apiVersion | first }}{{ end }}
- apiGroups: [{{ $group | quote }}]
  resources: [{{ .resource | quote }}]
  verbs: [list, watch] # a target of workloads
- apiGroups: [{{ $group | quote }}]
  resources: [{{ printf "%s/scale" .resource | quote }}]
  verbs: [get, patch]
{{- end }}
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, list, watch, create, delete] # delete: beyond a workload's history
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete] # delete: of an update that failed before it served
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, patch] # patch: weights; the Gateway API need not be installed
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list, watch] # what they scale is left alone
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [list, watch] # likewise; KEDA need not be installed
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
