//! Pod Security *restricted* (kubernetes.io/docs/concepts/security/pod-security-standards), and what this project demands beyond it.

use crate::render::{containers, name, pod, renders};
use serde_json::Value;

/// Kinds of volumes that *restricted* admits.
const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

/// What *restricted* refuses of a pod.
fn violations(pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    let mut found = Vec::new();
    let mut refuse = |is_wrong: bool, what: &str| {
        if is_wrong {
            found.push(what.to_owned());
        }
    };
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        refuse(spec[key] == true, key);
    }
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        let kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        kinds.filter(|kind| !VOLUMES.contains(&kind.as_str())).for_each(|kind| refuse(true, kind));
    }
    let of_pod = &spec["securityContext"];
    refuse(!of_pod["sysctls"].is_null(), "sysctls");
    for container in containers(pod) {
        let own = &container["securityContext"];
        let effective = |key: &str| if own[key].is_null() { &of_pod[key] } else { &own[key] };
        refuse(effective("runAsNonRoot") != true, "runAsNonRoot");
        refuse(effective("runAsUser") == 0, "runAsUser");
        let seccomp = &effective("seccompProfile")["type"];
        refuse(seccomp != "RuntimeDefault" && seccomp != "Localhost", "seccompProfile");
        refuse(own["allowPrivilegeEscalation"] != false, "allowPrivilegeEscalation");
        refuse(own["privileged"] == true, "privileged");
        refuse(!own["procMount"].is_null(), "procMount");
        refuse(own["capabilities"]["drop"] != serde_json::json!(["ALL"]), "capabilities.drop");
        let added = own["capabilities"]["add"].as_array().into_iter().flatten();
        added.filter(|added| *added != "NET_BIND_SERVICE").for_each(|_| refuse(true, "capabilities.add"));
        for key in ["seLinuxOptions", "appArmorProfile", "windowsOptions"] {
            refuse(!effective(key).is_null(), key);
        }
        let ports = container["ports"].as_array().into_iter().flatten();
        ports.filter(|port| !port["hostPort"].is_null()).for_each(|_| refuse(true, "hostPort"));
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            refuse(!container[probe]["httpGet"]["host"].is_null() || !container[probe]["tcpSocket"]["host"].is_null(), "host");
        }
    }
    found
}

#[test]
fn every_pod_but_those_of_host_path_is_restricted() {
    let Some(renders) = renders() else { return };
    let mut pods = 0;
    for (set, documents) in &renders.sets {
        for document in documents {
            let Some(pod) = pod(document) else { continue };
            pods += 1;
            let is_host_path = set == "ci/daemonset-values.yaml" && document["kind"] == "DaemonSet";
            let expected: &[&str] = if is_host_path { &["hostPath"] } else { &[] };
            assert_eq!(violations(pod), expected, "{set}: {}", name(document));
        }
    }
    assert!(pods > 20, "{pods}");
}

#[test]
fn the_check_of_restricted_finds_each_violation() {
    let Some(renders) = renders() else { return };
    let documents = &renders.sets["ci/default-values.yaml"];
    let good = documents.iter().find(|document| document["kind"] == "StatefulSet").and_then(pod).unwrap();
    let container = "/spec/containers/0/securityContext";
    for (path, value, expected) in [
        ("/spec/securityContext/runAsNonRoot", Value::Null, "runAsNonRoot"),
        ("/spec/securityContext/runAsUser", 0.into(), "runAsUser"),
        ("/spec/securityContext/seccompProfile", Value::Null, "seccompProfile"),
        (&format!("{container}/allowPrivilegeEscalation"), Value::Null, "allowPrivilegeEscalation"),
        (&format!("{container}/capabilities"), Value::Null, "capabilities.drop"),
        ("/spec/containers/0/ports/0", serde_json::json!({"hostPort": 80}), "hostPort"),
        ("/spec/volumes", serde_json::json!([{"name": "n", "nfs": {}}]), "nfs"),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = value;
        assert_eq!(violations(&bad), [expected], "{path}");
    }
}

#[test]
fn pods_have_no_token_no_service_links_a_read_only_root_and_bounds() {
    let Some(renders) = renders() else { return };
    for (set, documents) in &renders.sets {
        for document in documents {
            let Some(pod) = pod(document) else { continue };
            let place = format!("{set}: {}", name(document));
            let is_test = document["kind"] == "Pod";
            // Only what keeps certificates calls the API server.
            let has_token = pod["metadata"]["labels"]["app.kubernetes.io/component"] == "certificates";
            assert_eq!(pod["spec"]["automountServiceAccountToken"], has_token, "{place}");
            // A Service named p2pdi would set P2PDI_PORT=tcp://…, which is the flag --port.
            assert_eq!(pod["spec"]["enableServiceLinks"], false, "{place}");
            for container in containers(pod) {
                assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{place}");
                assert!(!container["imagePullPolicy"].is_null(), "{place}");
                for resource in ["/resources/requests/cpu", "/resources/requests/memory", "/resources/limits/memory"] {
                    assert!(is_test || container.pointer(resource).is_some(), "{place}: {resource}");
                }
            }
        }
    }
}
