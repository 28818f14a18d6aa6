{{- /* The text of a file with the release's namespaces and image in it. */ -}}
{{- define "localmodel.text" -}}
{{- $text := .text | replace "kserve-localmodel-jobs" .root.Values.localModel.jobNamespace -}}
{{- $text = $text | replace "system:serviceaccount:kserve:" (printf "system:serviceaccount:%s:" .root.Release.Namespace) -}}
{{- $text = regexReplaceAll "namespace: kserve([\\s,}])" $text (printf "namespace: %s${1}" .root.Release.Namespace) -}}
{{- regexReplaceAll "image: localmodel(\\s)" $text (printf "image: %s${1}" .root.Values.image) -}}
{{- end -}}

{{- /* Puts the release's values into an object. */ -}}
{{- define "localmodel.place" -}}
{{- $object := .object -}}
{{- $values := .root.Values -}}
{{- $notes := dict -}}
{{- if eq .folder "uninstall" -}}
  {{- $weight := ternary "1" "0" (eq $object.kind "Job") -}}
  {{- $notes = dict "helm.sh/hook" "pre-delete" "helm.sh/hook-weight" $weight "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" -}}
{{- else if has $object.kind (list "CustomResourceDefinition" "Namespace") -}}
  {{- $notes = dict "helm.sh/resource-policy" "keep" -}}
{{- end -}}
{{- if $notes -}}
  {{- $_ := set $object.metadata "annotations" (merge $notes (default dict $object.metadata.annotations)) -}}
{{- end -}}
{{- if has $object.kind (list "Deployment" "Job") -}}
  {{- $pod := $object.spec.template.spec -}}
  {{- $_ := set $object.spec.template "spec" (mergeOverwrite $pod (deepCopy $values.operator.pod)) -}}
{{- end -}}
{{- if eq $object.kind "Deployment" -}}
  {{- $container := first $object.spec.template.spec.containers -}}
  {{- $_ := set $container "resources" (mergeOverwrite $container.resources (deepCopy $values.operator.resources)) -}}
{{- end -}}
{{- if eq (printf "%s %s" $object.kind $object.metadata.name) "ResourceQuota localmodel-jobs" -}}
  {{- $_ := set $object.spec "hard" (mergeOverwrite $object.spec.hard (deepCopy $values.jobs.quota.hard)) -}}
{{- end -}}
{{- if eq (printf "%s %s" $object.kind $object.metadata.name) "NetworkPolicy localmodel-jobs" -}}
  {{- if kindIs "slice" $values.jobs.networkPolicy.clusterRanges -}}
    {{- range $to := (last $object.spec.egress).to -}}
      {{- $except := list -}}
      {{- range $range := $values.jobs.networkPolicy.clusterRanges -}}
        {{- if eq (contains ":" $range) (contains ":" $to.ipBlock.cidr) -}}
          {{- $except = append $except $range -}}
        {{- end -}}
      {{- end -}}
      {{- $_ := set $to.ipBlock "except" $except -}}
    {{- end -}}
  {{- end -}}
  {{- $_ := set $object.spec "egress" (concat $object.spec.egress $values.jobs.networkPolicy.egress) -}}
{{- end -}}
{{- if eq (printf "%s %s" $object.kind $object.metadata.name) "Deployment localmodel-operator" -}}
  {{- $_ := set $object.spec "replicas" $values.operator.replicas -}}
  {{- with $values.operator.webhook.clientCA.configMap -}}
    {{- $pod := $object.spec.template.spec -}}
    {{- $container := first $pod.containers -}}
    {{- $volume := dict "name" "webhook-client-ca" "configMap" (dict "name" .) -}}
    {{- $mount := dict "name" "webhook-client-ca" "mountPath" "/webhook-client-ca" "readOnly" true -}}
    {{- $file := dict "name" "WEBHOOK_CLIENT_CA" "value" (printf "/webhook-client-ca/%s" $values.operator.webhook.clientCA.key) -}}
    {{- $_ := set $pod "volumes" (append (default list $pod.volumes) $volume) -}}
    {{- $_ := set $container "volumeMounts" (append (default list $container.volumeMounts) $mount) -}}
    {{- $_ := set $container "env" (append $container.env $file) -}}
  {{- end -}}
{{- end -}}
{{- if eq (printf "%s %s" $object.kind $object.metadata.name) "NetworkPolicy localmodel-operator" -}}
  {{- with $values.operator.webhook.from -}}
    {{- $_ := set (first $object.spec.ingress) "from" . -}}
  {{- end -}}
{{- end -}}
{{- if eq $object.kind "ConfigMap" -}}
  {{- $_ := set $object.data "localModel" (toPrettyJson $values.localModel) -}}
  {{- if $values.storageInitializer -}}
    {{- $_ := set $object.data "storageInitializer" (toPrettyJson $values.storageInitializer) -}}
  {{- end -}}
{{- end -}}
{{- end -}}
