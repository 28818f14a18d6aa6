//! What our accounts may do, as the install manifests say, against what they did.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::audit::Request;

/// One verb on one resource, on one object where the rule names objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// The account, as the API server names it.
    pub account: String,
    /// The kind and name of the role.
    pub role: (String, String),
    /// The role's namespace; empty for a `ClusterRole`.
    pub namespace: String,
    /// The API group; empty for the core.
    pub group: String,
    /// The resource, with a part after a slash.
    pub resource: String,
    /// The object; empty for any.
    pub name: String,
    /// The verb.
    pub verb: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { account, role: (kind, role), namespace, group, resource, name, verb } = self;
        write!(f, "{verb} {resource}.{group} {name} in {kind} {namespace}/{role} for {account}")
    }
}

impl Right {
    /// Whether a request was allowed by it.
    pub fn allowed(&self, request: &Request) -> bool {
        let object = &request.object_ref;
        let resource = match &*object.subresource {
            "" => object.resource.clone(),
            part => format!("{}/{part}", object.resource),
        };
        let (kind, role) = &self.role;
        let reason = request.annotations.get("authorization.k8s.io/reason");
        request.user.username == self.account
            && (request.verb == self.verb || (self.verb == "create" && applied_anew(request)))
            && (&object.api_group, &resource) == (&self.group, &self.resource)
            && (self.name.is_empty() || self.name == object.name)
            && (self.namespace.is_empty() || self.namespace == object.namespace)
            && reason.is_some_and(|reason| reason.contains(&format!(" of {kind} \"{role}\" ")))
    }
}

/// An apply that makes its object needs the right to create it, and is still logged as a patch.
fn applied_anew(request: &Request) -> bool {
    request.verb == "patch" && request.response_status.code == 201
}

/// All rights that roles and bindings among these objects give to accounts.
pub fn granted(objects: &[Value]) -> Result<Vec<Right>> {
    let mut rights = Vec::new();
    for binding in objects {
        if !text(&binding["kind"]).ends_with("RoleBinding") {
            continue;
        }
        let namespace = text(&binding["metadata"]["namespace"]);
        let role = &binding["roleRef"];
        let is_the_role = |object: &&Value| {
            object["kind"] == role["kind"]
                && object["metadata"]["name"] == role["name"]
                && text(&object["metadata"]["namespace"]) == namespace
        };
        let found = objects.iter().find(is_the_role).with_context(|| format!("{role} is not there"))?;
        for subject in list(&binding["subjects"]) {
            let account =
                format!("system:serviceaccount:{}:{}", text(&subject["namespace"]), text(&subject["name"]));
            let named = (text(&role["kind"]), text(&role["name"]));
            for allowed in list(&found["rules"]) {
                rights.extend(of_rule(allowed, &account, &named, &namespace)?);
            }
        }
    }
    Ok(rights)
}

fn of_rule(rule: &Value, account: &str, held: &(String, String), namespace: &str) -> Result<Vec<Right>> {
    ensure!(!rule.to_string().contains("\"*\""), "a rule that does not name what it allows: {rule}");
    let names = match list(&rule["resourceNames"]) {
        [] => vec![String::new()],
        names => names.iter().map(text).collect(),
    };
    let mut rights = Vec::new();
    for group in list(&rule["apiGroups"]) {
        for resource in list(&rule["resources"]) {
            for verb in list(&rule["verbs"]) {
                rights.extend(names.iter().map(|name| Right {
                    account: account.to_owned(),
                    role: held.clone(),
                    namespace: namespace.to_owned(),
                    group: text(group),
                    resource: text(resource),
                    name: name.clone(),
                    verb: text(verb),
                }));
            }
        }
    }
    ensure!(!rights.is_empty(), "a rule that allows nothing: {rule}");
    Ok(rights)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn objects(rule: &Value) -> Vec<Value> {
        let meta = json!({"name": "agent", "namespace": "kserve"});
        vec![
            json!({"kind": "Role", "metadata": meta, "rules": [rule]}),
            json!({
                "kind": "RoleBinding",
                "metadata": meta,
                "roleRef": {"kind": "Role", "name": "agent"},
                "subjects": [{"kind": "ServiceAccount", "namespace": "kserve", "name": "agent"}],
            }),
        ]
    }

    fn request(verb: &str, name: &str, reason: &str) -> Request {
        serde_json::from_value(json!({
            "auditID": "1",
            "verb": verb,
            "requestURI": "/",
            "user": {"username": "system:serviceaccount:kserve:agent"},
            "objectRef": {"resource": "configmaps", "namespace": "kserve", "name": name},
            "requestReceivedTimestamp": "2026-01-01T00:00:00.000001Z",
            "annotations": {"authorization.k8s.io/reason": reason},
        }))
        .unwrap()
    }

    const BY_THE_ROLE: &str =
        "RBAC: allowed by RoleBinding \"agent/kserve\" of Role \"agent\" to ServiceAccount \"agent/kserve\"";

    #[test]
    fn a_right_is_one_verb_on_one_resource_and_object() {
        let (resources, verbs) = (["configmaps", "pods"], ["get", "list"]);
        let rule = json!({"apiGroups": [""], "resources": resources, "resourceNames": ["a"], "verbs": verbs});
        let rights = granted(&objects(&rule)).unwrap();
        let verbs: Vec<_> =
            rights.iter().map(|r| (r.resource.as_str(), r.name.as_str(), r.verb.as_str())).collect();
        let wanted = [
            ("configmaps", "a", "get"),
            ("configmaps", "a", "list"),
            ("pods", "a", "get"),
            ("pods", "a", "list"),
        ];
        assert_eq!(verbs, wanted);
        assert_eq!(rights[0].account, "system:serviceaccount:kserve:agent");
    }

    #[test]
    fn a_request_uses_the_right_by_whose_role_it_was_allowed() {
        let rule =
            json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"], "verbs": ["get"]});
        let right = granted(&objects(&rule)).unwrap().remove(0);
        assert!(right.allowed(&request("get", "a", BY_THE_ROLE)));
        assert!(!right.allowed(&request("list", "a", BY_THE_ROLE)));
        assert!(!right.allowed(&request("get", "b", BY_THE_ROLE)));
        let by_another = BY_THE_ROLE.replace("Role \"agent\"", "ClusterRole \"agent\"");
        assert!(!right.allowed(&request("get", "a", &by_another)));
    }

    #[test]
    fn an_apply_that_made_its_object_used_the_right_to_create() {
        let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]});
        let right = granted(&objects(&rule)).unwrap().remove(0);
        let mut apply = request("patch", "a", BY_THE_ROLE);
        assert!(!right.allowed(&apply));
        apply.response_status.code = 201;
        assert!(right.allowed(&apply));
    }

    #[test]
    fn a_rule_that_allows_everything_or_nothing_is_refused() {
        for rule in [
            json!({"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}),
            json!({"apiGroups": [""], "resources": ["pods"], "verbs": []}),
        ] {
            granted(&objects(&rule)).unwrap_err();
        }
    }
}
