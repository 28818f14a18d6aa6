//! The admission policies of `deploy/base`, evaluated as the API server does it, over the objects that the plan
//! makes and over those that nobody may make.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::KubeCelExt;
use kube_cel::cel::objects::Map;
use kube_cel::cel::{Context, Program, Value as Cel, to_value};
use serde_json::{Value, json};

mod agents;
mod operator;
mod pods;

/// What the API server asks a policy about.
#[derive(Clone, Debug, Default)]
struct Asked {
    /// Who asks for what.
    request: Value,
    object: Value,
    old: Value,
    params: Value,
    namespace: Value,
}

/// The policy of this name among the objects of a manifest.
fn policy(manifest: &str, name: &str) -> Value {
    let objects: Vec<Value> = serde_saphyr::from_multiple(manifest).unwrap();
    let is_it =
        |object: &&Value| object["kind"] == "ValidatingAdmissionPolicy" && object["metadata"]["name"] == name;
    objects.iter().find(is_it).unwrap()["spec"].clone()
}

/// Nothing, or why the policy refuses the request.
fn refusal(policy: &Value, asked: &Asked) -> Option<String> {
    let mut variables = HashMap::new();
    let list = |key: &str| policy[key].as_array().cloned().unwrap_or_default();
    for condition in list("matchConditions") {
        if evaluated(&condition["expression"], asked, &variables).unwrap() != Cel::Bool(true) {
            return None;
        }
    }
    for variable in list("variables") {
        // One that cannot be evaluated is an error only where it is used.
        if let Ok(value) = evaluated(&variable["expression"], asked, &variables) {
            variables.insert(variable["name"].as_str().unwrap().to_owned(), value);
        }
    }
    let failed = list("validations").into_iter().find(|validation| {
        let holds = evaluated(&validation["expression"], asked, &variables);
        holds.unwrap_or_else(|error| panic!("{error}")) != Cel::Bool(true)
    })?;
    match &failed["messageExpression"] {
        Value::Null => failed["message"].as_str().map(Into::into),
        words => match evaluated(words, asked, &variables).unwrap() {
            Cel::String(words) => Some(words.to_string()),
            other => panic!("{words} is {other:?}"),
        },
    }
}

fn evaluated(expression: &Value, asked: &Asked, variables: &HashMap<String, Cel>) -> Result<Cel, String> {
    let mut context = Context::default().with_all();
    let known = [
        ("request", &asked.request),
        ("object", &asked.object),
        ("oldObject", &asked.old),
        ("params", &asked.params),
        ("namespaceObject", &asked.namespace),
    ];
    for (name, value) in known {
        context.add_variable_from_value(name, signed(to_value(value).unwrap()));
    }
    context.add_variable_from_value("variables", variables.clone());
    let program = Program::compile(expression.as_str().unwrap()).unwrap();
    program.execute(&context).map_err(|error| format!("{expression}: {error}"))
}

/// Integers as the API server has them, where nothing is unsigned.
fn signed(value: Cel) -> Cel {
    match value {
        Cel::UInt(number) => Cel::Int(number.try_into().unwrap()),
        Cel::List(items) => Cel::List(Arc::new(items.iter().cloned().map(signed).collect())),
        Cel::Map(fields) => {
            let fields = fields.map.iter().map(|(key, value)| (key.clone(), signed(value.clone())));
            Cel::Map(Map { map: Arc::new(fields.collect()) })
        }
        other => other,
    }
}
