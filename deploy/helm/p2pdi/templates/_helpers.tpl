{{/* Start of the names of objects. 50 characters leave room for suffixes within the 63 of a label. */}}
{{- define "p2pdi.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that select: (list $ COMPONENT). An empty component selects all pods of the release. */}}
{{- define "p2pdi.selector" -}}
{{- $root := first . -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with last . }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* All labels: (list $ COMPONENT). */}}
{{- define "p2pdi.labels" -}}
{{- $root := first . -}}
{{ include "p2pdi.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Metadata of an object: (list $ COMPONENT), or (list $ COMPONENT SUFFIX) if the name does not end with the component. */}}
{{- define "p2pdi.metadata" -}}
{{- $root := first . -}}
{{- $component := index . 1 -}}
name: {{ include "p2pdi.fullname" $root }}-{{ last . }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "p2pdi.labels" (list $root $component) | nindent 2 }}
{{- end -}}

{{/* Metadata of a pod: (list $ COMPONENT SETTINGS). No version: another version of the chart restarts nothing by itself. */}}
{{- define "p2pdi.podMetadata" -}}
{{- $root := first . -}}
{{- $settings := last . -}}
labels:
  {{- include "p2pdi.selector" (list $root (index . 1)) | nindent 2 }}
  {{- range $labels := list $root.Values.commonLabels $settings.podLabels }}
  {{- with $labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- $annotations := deepCopy (default dict $settings.podAnnotations) }}
{{- /* A variable is read at the start; files of certificates are read again when they change. */}}
{{- with dig "etcd" "userSecret" "" $settings }}
{{- with lookup "v1" "Secret" $root.Release.Namespace . }}
{{- $_ := set $annotations "checksum/etcd-user" (toJson .data | sha256sum) }}
{{- end }}
{{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where a pod listens and what it advertises. */}}
{{- define "p2pdi.anyAddress" -}}{{ if eq .Values.ipFamily "IPv6" }}[::]{{ else }}0.0.0.0{{ end }}{{- end -}}
{{- define "p2pdi.podAddress" -}}{{ if eq .Values.ipFamily "IPv6" }}[$(POD_IP)]{{ else }}$(POD_IP){{ end }}{{- end -}}

{{- define "p2pdi.scheme" -}}{{ eq .Values.tls.mode "none" | ternary "http" "https" }}{{- end -}}

{{/* Folder of the certificate authority in the registry's pod, and what `kubectl exec` calls a pod that has it. */}}
{{- define "p2pdi.caFolder" -}}{{ empty .Values.registry.etcd.endpoints | ternary "/var/lib/p2pdi/ca" "/ca" }}{{- end -}}
{{- define "p2pdi.registryWorkload" -}}
{{ empty .Values.registry.etcd.endpoints | ternary "statefulset" "deployment" }}/{{ include "p2pdi.fullname" . }}-registry
{{- end -}}

{{/* URL of the registry; empty without one. Of several replicas each has an address of its own by this name. */}}
{{- define "p2pdi.registryUrl" -}}
{{- if .Values.registry.enabled -}}
{{ include "p2pdi.scheme" . }}://{{ include "p2pdi.fullname" . }}-{{ empty .Values.registry.etcd.endpoints | ternary "registry" "registries" }}.{{ .Release.Namespace }}:{{ .Values.registry.port }}
{{- else -}}
{{- .Values.peer.registryUrl -}}
{{- end -}}
{{- end -}}

{{/* How the registry of this release is dialled, separated by commas. */}}
{{- define "p2pdi.registryHosts" -}}
{{- $hosts := list -}}
{{- range $service := empty .Values.registry.etcd.endpoints | ternary (list "registry") (list "registry" "registries") -}}
{{- $host := printf "%s-%s" (include "p2pdi.fullname" $) $service -}}
{{- $hosts = concat $hosts (list $host (printf "%s.%s" $host $.Release.Namespace) (printf "%s.%s.svc" $host $.Release.Namespace)) -}}
{{- end -}}
{{- join "," $hosts -}}
{{- end -}}

{{- define "p2pdi.image" -}}
{{- $image := .Values.image -}}
{{- $registry := default $image.registry .Values.global.imageRegistry -}}
{{- with $registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .Chart.AppVersion $image.tag }}{{ end }}
{{- end -}}

{{- define "p2pdi.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}{{ include "p2pdi.fullname" . }}{{- else -}}{{ default "default" .Values.serviceAccount.name }}{{- end -}}
{{- end -}}

{{/* What every pod's spec begins with: (list $ SETTINGS), where the settings are those of the component in the values. */}}
{{- define "p2pdi.podSpec" -}}
{{- $root := first . -}}
{{- $settings := last . -}}
serviceAccountName: {{ default (include "p2pdi.serviceAccount" $root) $settings.account }}
{{- /* Only what keeps certificates calls the API server. */}}
automountServiceAccountToken: {{ not (empty $settings.account) }}
enableServiceLinks: false
{{- with $root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml $root.Values.podSecurityContext | nindent 2 }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with index $settings $key }}
{{ $key }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Topology spread of a component's pods: (list $ COMPONENT SETTINGS). */}}
{{- define "p2pdi.spread" -}}
{{- $root := first . -}}
{{- $component := index . 1 -}}
{{- with (last .).topologySpreadConstraints -}}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml . | nindent 4 | trim }}
    labelSelector:
      matchLabels:
        {{- include "p2pdi.selector" (list $root $component) | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What every container begins with. */}}
{{- define "p2pdi.container" -}}
image: {{ include "p2pdi.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Arguments of both servers: (list $ SETTINGS). */}}
{{- define "p2pdi.serverArgs" -}}
{{- $root := first . -}}
{{- $settings := last . -}}
- --listen={{ include "p2pdi.anyAddress" $root }}:{{ $settings.port }}
- --health-listen={{ include "p2pdi.anyAddress" $root }}:{{ $root.Values.healthPort }}
- --grace={{ $settings.graceSeconds }}s
- --log={{ $root.Values.log.filter }}
- --log-format={{ $root.Values.log.format }}
- --network={{ $root.Values.network }}
{{- with include "p2pdi.tlsArgs" $root }}
{{ . }}
{{- end }}
{{- end -}}

{{/* Certificates that the CSI driver of cert-manager, or the Job of the chart, keeps in a volume. The same flags for all programs. */}}
{{- define "p2pdi.tlsArgs" -}}
{{- if has .Values.tls.mode (list "certManager" "chart") -}}
- --tls-cert=/tls/tls.crt
- --tls-key=/tls/tls.key
- --tls-ca=/tls/ca.crt
{{- end -}}
{{- end -}}

{{/* What `p2pctl` in a peer's pod shows: the peer's own certificate. */}}
{{- define "p2pdi.peerTlsArgs" -}}
{{- if eq .Values.tls.mode "joinToken" -}}
- --tls-cert=/var/lib/p2pdi/share/.state/tls/certificate.pem
- --tls-key=/var/lib/p2pdi/share/.state/tls/key.pem
- --tls-ca=/var/lib/p2pdi/share/.state/tls/ca.pem
{{- else -}}
{{- include "p2pdi.tlsArgs" . -}}
{{- end -}}
{{- end -}}

{{- define "p2pdi.tlsMount" -}}
{{- if has .Values.tls.mode (list "certManager" "chart") -}}
- {name: tls, mountPath: /tls, readOnly: true}
{{- end -}}
{{- end -}}

{{/* That volume: (list $ NAMES URI SECRET), the names separated by commas. Peers may be called by these names, and by no other. An empty URI:
none. SECRET: the end of the name of the Secret that the chart's Job keeps; empty: the volume is another one. */}}
{{- define "p2pdi.tlsVolume" -}}
{{- $root := first . -}}
{{- with $root.Values.tls -}}
{{- if and (eq .mode "chart") (last $) -}}
- {name: tls, secret: {secretName: {{ include "p2pdi.fullname" $root }}-{{ last $ }}, defaultMode: 0440}}
{{- else if eq .mode "certManager" -}}
- name: tls
  csi:
    driver: csi.cert-manager.io
    readOnly: true
    volumeAttributes:
      csi.cert-manager.io/issuer-name: {{ required "tls.issuer.name is the issuer for tls.mode certManager" .issuer.name }}
      csi.cert-manager.io/issuer-kind: {{ .issuer.kind }}
      csi.cert-manager.io/issuer-group: {{ .issuer.group }}
      csi.cert-manager.io/dns-names: {{ index $ 1 | quote }}
      {{- with index $ 2 }}
      csi.cert-manager.io/uri-sans: {{ . }}
      {{- end }}
      csi.cert-manager.io/duration: {{ .duration }}
      csi.cert-manager.io/key-usages: "digital signature,server auth,client auth"
      csi.cert-manager.io/key-encoding: PKCS8
      {{- with $root.Values.podSecurityContext.fsGroup }}
      csi.cert-manager.io/fs-group: {{ . | quote }}
      {{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The token with which a peer joins. */}}
{{- define "p2pdi.joinEnv" -}}
{{- if eq .Values.tls.mode "joinToken" -}}
- {name: P2PDI_PEER_JOIN, valueFrom: {secretKeyRef: {name: {{ .Values.tls.tokenSecret }}, key: token}}}
{{- end -}}
{{- end -}}

{{/* Ports and probes of both servers: (list $ SETTINGS). A peer is ready once its share is read, however long that takes. */}}
{{- define "p2pdi.serverPorts" -}}
{{- $health := (first .).Values.healthPort -}}
ports:
  - {name: grpc, containerPort: {{ (last .).port }}}
  - {name: health, containerPort: {{ $health }}}
startupProbe:
  grpc: {port: {{ $health }}, service: live}
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  grpc: {port: {{ $health }}, service: live}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  grpc: {port: {{ $health }}, service: ready}
  periodSeconds: 5
  timeoutSeconds: 3
{{- end -}}

{{/* A claim's spec: SIZE, STORAGE CLASS, MODES. */}}
{{- define "p2pdi.claim" -}}
accessModes: {{ toJson (last .) }}
resources: {requests: {storage: {{ first . }}}}
{{- with index . 1 }}
storageClassName: {{ . }}
{{- end }}
{{- end -}}
