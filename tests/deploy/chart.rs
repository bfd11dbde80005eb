//! The chart renders for every set of values, to documents that Kubernetes accepts and that fit together.

use crate::{
    render::{chart, containers, name, pod, renders, strings, succeeds, template, value_sets},
    support::tools::helm,
};
use serde_json::Value;
use std::{collections::BTreeSet, process::Command};

#[test]
fn lint_accepts_every_set_of_values() {
    let Some(helm) = helm() else { return };
    let mut command = Command::new(helm);
    command.args(["lint", "--strict", "--quiet"]).arg(chart());
    for set in value_sets() {
        succeeds(command.arg("--values").arg(set));
    }
}

#[test]
fn every_document_is_valid_for_kubernetes_1_31_to_1_37() {
    let Some(renders) = renders() else { return };
    let versions: Vec<_> = (31..=37).map(|minor| format!("1.{minor}")).collect();
    assert!(renders.versions.starts_with(&versions), "{:?}", renders.versions);
    assert!(renders.errors.is_empty(), "{:#?}", renders.errors);
}

#[test]
fn values_that_are_wrong_are_named() {
    let Some(helm) = helm() else { return };
    for (value, words) in [
        ("peer.nope=1", "additional properties 'nope' not allowed"),
        ("peer.kind=Deployment", "/peer/kind"),
        ("peer.port=80", "/peer/port"),
        ("peer.quota=much", "/peer/quota"),
        ("registry.ttl=soon", "/registry/ttl"),
        ("fetch.enabled=true", "/fetch/documents"),
        ("image.digest=latest", "/image/digest"),
        ("peer.storage.type=hostPath", "hostPath needs peer.kind DaemonSet"),
        ("registry.replicas=0", "/registry/replicas"),
        ("registry.replicas=2", "more than one registry needs registry.etcd.endpoints"),
        ("registry.autoscaling.enabled=true", "more than one registry needs registry.etcd.endpoints"),
        ("registry.etcd.endpoints={etcd:2379}", "/registry/etcd/endpoints"),
        (
            "registry.etcd.endpoints={http://etcd:2379},tls.mode=joinToken",
            "joinToken with registry.etcd needs tls.authoritySecret",
        ),
        ("tls.mode=chart,peer.kind=DaemonSet", "tls.mode chart needs peer.kind StatefulSet"),
        ("tls.mode=chart,peer.replicas=257", "tls.mode chart is for up to 256 peers"),
    ] {
        let output = Command::new(&helm).args(template(&["--set", value])).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(words), "{value}: {stderr}");
    }
}

#[test]
fn documents_have_names_of_their_own_a_namespace_and_the_release_as_label() {
    let Some(renders) = renders() else { return };
    for (set, documents) in &renders.sets {
        let mut names = BTreeSet::new();
        for document in documents.iter().filter(|document| !name(document).starts_with("ConfigMap/p2pdi-more")) {
            assert!(names.insert(name(document)), "{set}: {} twice", name(document));
            let metadata = &document["metadata"];
            assert!(metadata["name"].as_str().unwrap().len() <= 63, "{metadata}");
            if document["metadata"]["labels"].is_null() {
                assert_eq!(set, "ci/names-values.yaml", "only extraObjects have no labels: {metadata}");
                continue;
            }
            assert_eq!(metadata["namespace"], "p2pdi", "{set}: {metadata}");
            assert_eq!(metadata["labels"]["app.kubernetes.io/instance"], "p2pdi", "{set}: {metadata}");
        }
    }
}

/// Whether `labels` has all pairs of a selector's `matchLabels`.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector.as_object().unwrap().iter().all(|(key, value)| &labels[key] == value)
}

#[test]
fn selectors_find_the_pods_they_are_about() {
    let Some(renders) = renders() else { return };
    for (set, documents) in &renders.sets {
        let pods: Vec<_> = documents.iter().filter_map(pod).map(|pod| &pod["metadata"]["labels"]).collect();
        for document in documents {
            let spec = &document["spec"];
            let (selector, found) = match document["kind"].as_str().unwrap() {
                "Service" => (&spec["selector"], &pods[..]),
                "PodDisruptionBudget" | "PodMonitor" => (&spec["selector"]["matchLabels"], &pods[..]),
                "NetworkPolicy" => (&spec["podSelector"]["matchLabels"], &pods[..]),
                "StatefulSet" | "DaemonSet" | "Deployment" => {
                    (&spec["selector"]["matchLabels"], &[&spec["template"]["metadata"]["labels"]][..])
                }
                _ => continue,
            };
            assert!(found.iter().any(|labels| selects(selector, labels)), "{set}: {} selects nothing", name(document));
            // What selects one part must not select another.
            if document["kind"] != "NetworkPolicy" {
                assert_eq!(pods.iter().filter(|labels| selects(selector, labels)).count(), 1, "{set}: {}", name(document));
            }
        }
    }
}

#[test]
fn ports_volumes_accounts_and_services_that_are_referred_to_exist() {
    let Some(renders) = renders() else { return };
    for (set, documents) in &renders.sets {
        let has = |wanted: String| documents.iter().any(|document| name(document) == wanted);
        for document in documents {
            if let Some(service) = document["spec"]["serviceName"].as_str() {
                assert!(has(format!("Service/{service}")), "{set}: {service}");
            }
            let Some(pod) = pod(document) else { continue };
            let account = pod["spec"]["serviceAccountName"].as_str().unwrap();
            assert!(account == "builder" || has(format!("ServiceAccount/{account}")), "{set}: {account}");
            let templates =
                document["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten().map(|claim| &claim["metadata"]);
            let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
            let volumes: Vec<_> = volumes.chain(templates).map(|volume| &volume["name"]).collect();
            for container in containers(pod) {
                let mounts = container["volumeMounts"].as_array().unwrap();
                assert!(mounts.iter().all(|mount| volumes.contains(&&mount["name"])), "{set}: {container}");
                let ports: Vec<_> = container["ports"].as_array().into_iter().flatten().map(|port| &port["name"]).collect();
                for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                    let port = &container[probe]["httpGet"]["port"];
                    assert!(!port.is_string() || ports.contains(&port), "{set}: {container}");
                }
            }
        }
    }
}

#[test]
fn registries_over_etcd_are_replaced_without_a_gap_and_keep_nothing_themselves() {
    let Some(renders) = renders() else { return };
    for (set, endpoints) in [
        ("ci/etcd-values.yaml", "https://etcd-0.etcd.etcd:2379,https://etcd-1.etcd.etcd:2379"),
        ("values-ha.yaml", "http://etcd-0.etcd.etcd:2379,http://etcd-1.etcd.etcd:2379,http://etcd-2.etcd.etcd:2379"),
    ] {
        let documents = &renders.sets[set];
        let find = |wanted: &str| documents.iter().find(|document| name(document) == wanted);
        let registry = find("Deployment/p2pdi-registry").unwrap();
        assert!(find("StatefulSet/p2pdi-registry").is_none() && find("PodDisruptionBudget/p2pdi-registry").is_some());
        assert_eq!(registry["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
        let pod = pod(registry).unwrap();
        assert!(pod["spec"]["topologySpreadConstraints"].as_array().is_some_and(|list| !list.is_empty()));
        let container = containers(pod)[0];
        let arguments = strings(&container["args"]);
        assert!(arguments.contains(&"--store=etcd") && arguments.contains(&format!("--etcd-endpoints={endpoints}").as_str()));
        assert!(arguments.iter().any(|argument| argument.starts_with("--replica-address=")), "{arguments:?}");
        assert!(!arguments.iter().any(|argument| argument.starts_with("--state=")), "{arguments:?}");
        // Calls come for a moment longer, until no Service leads here.
        assert!(container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64() > Some(0));
        // Callers see each replica that is ready, and go to another one when one refuses.
        let each = find("Service/p2pdi-registries").unwrap();
        assert_eq!(each["spec"]["clusterIP"], "None");
        assert!(each["spec"]["publishNotReadyAddresses"].is_null());
        assert!(arguments.iter().any(|argument| argument.starts_with("--http-host=") && argument.contains("p2pdi-registries")));
        let peers = [find("StatefulSet/p2pdi-peer"), find("DaemonSet/p2pdi-peer")];
        let peer = containers(crate::render::pod(peers.into_iter().flatten().next().unwrap()).unwrap())[0];
        let called = strings(&peer["args"]).into_iter().find(|argument| argument.starts_with("--registry=")).unwrap();
        assert!(called.ends_with("://p2pdi-registries.p2pdi:7800"), "{called}");
        // They call each other at the addresses of their pods, which no certificate has.
        let certificate = pod["spec"]["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "tls");
        let attributes = certificate.map(|volume| &volume["csi"]["volumeAttributes"]);
        let uri = |attributes: &Value| attributes["csi.cert-manager.io/uri-sans"].as_str() == Some("spiffe://default/registry");
        assert!(attributes.is_none_or(uri), "{attributes:?}");
        assert_eq!(attributes.is_some(), called.contains("https:"), "{set}");
        let scaler = find("HorizontalPodAutoscaler/p2pdi-registry");
        assert_eq!(scaler.is_some(), registry["spec"]["replicas"].is_null(), "{set}: one of both says how many");
        if let Some(scaler) = scaler {
            assert_eq!(scaler["spec"]["scaleTargetRef"]["name"], registry["metadata"]["name"]);
        }
        let policy = find("NetworkPolicy/p2pdi-registry").unwrap();
        assert!(policy["spec"]["egress"].to_string().contains("2379"), "{policy}");
    }
}

#[test]
fn what_makes_certificates_may_touch_its_own_secrets_only_and_a_peer_sees_its_own_key_only() {
    let Some(renders) = renders() else { return };
    let documents = &renders.sets["ci/chart-tls-values.yaml"];
    let find = |wanted: &str| documents.iter().find(|document| name(document) == wanted).unwrap();
    let volumes = |pod: &Value| pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    let mounted = documents.iter().filter_map(pod).flat_map(volumes);
    let mounted: BTreeSet<String> =
        mounted.filter_map(|volume| volume["secret"]["secretName"].as_str().map(str::to_owned)).collect();
    assert!(mounted.contains("p2pdi-registry-tls") && mounted.contains("p2pdi-peer-tls"), "{mounted:?}");
    for (account, kind) in [("p2pdi-certificates-hook", "Job"), ("p2pdi-certificates", "CronJob")] {
        let rules = find(&format!("Role/{account}"))["rules"].as_array().unwrap();
        let named = serde_json::json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "update"]});
        let mut without_names = rules[0].clone();
        let names = without_names.as_object_mut().unwrap().remove("resourceNames").unwrap();
        let names: BTreeSet<String> = strings(&names).into_iter().map(str::to_owned).collect();
        // Those that pods mount, the authority's, which none does, and that of a client outside.
        let own = ["p2pdi-ca", "laptop-tls"].map(str::to_owned);
        assert_eq!(names, mounted.iter().cloned().chain(own).collect::<BTreeSet<_>>());
        assert_eq!((&without_names, rules.len()), (&named, 2));
        assert_eq!(rules[1], serde_json::json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}));
        let binding = find(&format!("RoleBinding/{account}"));
        assert_eq!((&binding["roleRef"]["name"], &binding["subjects"][0]["name"]), (&account.into(), &account.into()));
        let job = pod(find(&format!("{kind}/{account}"))).unwrap();
        assert_eq!(job["spec"]["serviceAccountName"], account);
        let arguments = strings(&containers(job)[0]["args"]).join(" ");
        assert!(names.iter().all(|name| arguments.contains(&format!("={name}"))), "{arguments}");
        // The hook leaves nothing behind, and comes before everything else.
        for kind in ["ServiceAccount", "Role", "RoleBinding", kind] {
            let annotations = &find(&format!("{kind}/{account}"))["metadata"]["annotations"];
            let is_hook = kind == "Job" || account.ends_with("-hook");
            let (when, after) = ("pre-install,pre-upgrade", "before-hook-creation,hook-succeeded");
            let expected = is_hook.then_some((when, after));
            let found = annotations["helm.sh/hook"].as_str().zip(annotations["helm.sh/hook-delete-policy"].as_str());
            assert_eq!(found, expected, "{kind}/{account}");
        }
    }
    let peer = pod(find("StatefulSet/p2pdi-peer")).unwrap();
    let names = |container: &Value| -> Vec<String> {
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        mounts.map(|mount| mount["name"].as_str().unwrap().to_owned()).collect()
    };
    let (first, renewal, peer) = (containers(peer)[0], containers(peer)[1], containers(peer)[2]);
    assert!(first["restartPolicy"].is_null() && renewal["restartPolicy"] == "Always");
    assert!([first, renewal].iter().all(|container| names(container) == ["certificates", "tls"]));
    assert_eq!(names(peer), ["data", "tls"]);
    let policy = find("NetworkPolicy/p2pdi-certificates");
    assert_eq!(policy["spec"]["policyTypes"], serde_json::json!(["Ingress"]));
    assert!(policy["spec"]["ingress"].is_null(), "{policy}");
}

#[test]
fn an_image_has_a_mirror_a_tag_and_a_digest_that_wins() {
    let Some(helm) = helm() else { return };
    let digest = format!("sha256:{}", "a".repeat(64));
    for (values, image) in [
        ("image.tag=1.2.3".to_owned(), "ghcr.io/p2p-di/p2pdi:1.2.3".to_owned()),
        ("global.imageRegistry=mirror.example".to_owned(), "mirror.example/p2p-di/p2pdi:0.1.0".to_owned()),
        (format!("image.tag=1.2.3,image.digest={digest}"), format!("ghcr.io/p2p-di/p2pdi@{digest}")),
        ("image.registry=".to_owned(), "p2p-di/p2pdi:0.1.0".to_owned()),
    ] {
        let text = succeeds(Command::new(&helm).args(template(&["--set", &values])));
        let images: BTreeSet<_> = text.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
        assert_eq!(images, BTreeSet::from([image.as_str()]), "{values}");
    }
}

#[test]
fn a_stop_is_granted_more_time_than_calls_may_continue() {
    let Some(renders) = renders() else { return };
    for (set, document) in renders.sets.iter().flat_map(|(set, documents)| documents.iter().map(move |document| (set, document)))
    {
        let Some(pod) = pod(document) else { continue };
        let grace = containers(pod).into_iter().flat_map(|container| strings(&container["args"]));
        let Some(grace) = grace.filter_map(|argument| argument.strip_prefix("--grace=")).next() else { continue };
        let grace: u64 = grace.strip_suffix('s').unwrap().parse().unwrap();
        assert!(pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap() >= grace + 20, "{set}: {}", name(document));
    }
}

#[test]
fn the_notes_name_the_registry_and_warn_of_folders_of_nodes() {
    let Some(helm) = helm() else { return };
    for (set, has, has_not) in [
        ("default", "http://p2pdi-registry.p2pdi:7800", "WARNING"),
        ("daemonset", "WARNING: they share the folder /srv/models of each node", "gone with the pod"),
        ("fetch-schedule", "http://registry.example.org:7800", "port-forward"),
        ("names", "No registry", "helm test"),
    ] {
        let mut command = Command::new(&helm);
        command.args(["install", "p2pdi", "--namespace", "p2pdi", "--dry-run=client"]).arg(chart());
        let text = succeeds(command.arg("--values").arg(chart().join(format!("ci/{set}-values.yaml"))).env_remove("KUBECONFIG"));
        let (_, notes) = text.split_once("\nNOTES:\n").unwrap();
        assert!(notes.contains(has) && !notes.contains(has_not), "{set}: {notes}");
    }
}
