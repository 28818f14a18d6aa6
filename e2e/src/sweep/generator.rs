//! Objects that people get wrong: made from the schemas of our definitions, each with a few values that do not fit.

use anyhow::{Context, Result};
use localmodel::api::crds;
use serde_json::{Map, Value, json};

use super::dice::Dice;
use super::objects::{GROUP, IMAGE, LABEL, TEAM};

/// One of so many values is wrong, for as long as the object's share lasts.
const ONE_WRONG_OF: u64 = 5;
/// The most values of an object that are wrong.
const WRONG: u64 = 3;
/// How deep a value goes that no schema describes.
const DEPTH: usize = 4;

/// Makes objects; the same seed makes the same ones.
pub struct Generator {
    dice: Dice,
    /// The kinds and the schemas of their specs.
    kinds: Vec<(String, Value)>,
    made: usize,
    /// How many values of the present object may still be made wrong.
    wrong: u64,
}

impl Generator {
    /// One that begins with this seed.
    pub fn new(seed: u64) -> Result<Self> {
        let mut kinds = Vec::new();
        for definition in crds() {
            let kind = definition.spec.names.kind.clone();
            // Agents' lists are not written by people.
            if kind == "LocalModelNode" {
                continue;
            }
            let definition = serde_json::to_value(&definition)?;
            let schema =
                &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            let schema =
                schema.is_object().then(|| schema.clone()).with_context(|| format!("schema of {kind}"))?;
            kinds.push((kind, schema));
        }
        Ok(Self { dice: Dice::new(seed), kinds, made: 0, wrong: 0 })
    }

    /// The next object.
    pub fn object(&mut self) -> Value {
        self.made += 1;
        self.wrong = self.dice.below(WRONG + 1);
        let which = self.below(self.kinds.len());
        let (kind, schema) = self.kinds[which].clone();
        // Of several containers that fit the first by name is taken: these are to be nobody else's.
        let prefix = if kind == "ClusterStorageContainer" { "z-" } else { "" };
        let mut metadata = json!({"name": format!("{prefix}bad-{}", self.made)});
        if kind == "LocalModelNamespaceCache" {
            metadata["namespace"] = json!(TEAM);
        }
        if self.dice.below(20) == 0 {
            metadata["name"] = self.pick(&names(self.made));
        }
        if self.dice.below(10) == 0 {
            metadata["annotations"] = json!({"note": self.pick(&texts())});
        }
        let spec = self.value("spec", &schema);
        json!({"apiVersion": "serving.kserve.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
    }

    fn value(&mut self, name: &str, schema: &Value) -> Value {
        let is_whole = name == "spec"; // else the whole object were nothing but a wrong value
        if !is_whole && self.wrong > 0 && self.dice.below(ONE_WRONG_OF) == 0 {
            self.wrong -= 1;
            return self.wrong_value(schema);
        }
        if let Some(values) = usual(name) {
            return self.pick(&values);
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return self.pick(&[json!("1Gi"), json!("10G"), json!(1000), json!("500M")]);
        }
        match schema["type"].as_str() {
            Some("object") => self.fields(schema),
            Some("array") => {
                let least = schema["minItems"].as_u64().unwrap_or(0);
                let count = least + self.dice.below(3);
                (0..count).map(|_| self.value(item_name(name), &schema["items"])).collect()
            }
            Some("integer") => json!(self.dice.below(100)),
            Some("number") => json!(0.5),
            Some("boolean") => json!(self.dice.below(2) == 0),
            Some("string") => match schema["enum"].as_array() {
                Some(values) => self.pick(values),
                None => self.pick(&[json!("a"), json!("some-text")]),
            },
            _ => self.anything(DEPTH),
        }
    }

    fn fields(&mut self, schema: &Value) -> Value {
        let none = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut fields = Map::new();
        for (name, schema) in properties {
            let is_there = if required.contains(&name.as_str()) || usual(name).is_some() {
                self.dice.below(40) != 0
            } else {
                self.dice.below(8) == 0
            };
            if is_there {
                fields.insert(name.clone(), self.value(name, schema));
            }
        }
        if schema["additionalProperties"].is_object() {
            for key in ["storage", "type", "other key"].into_iter().take(self.below(3)) {
                fields.insert(key.into(), self.value("", &schema["additionalProperties"]));
            }
        }
        fields.into()
    }

    /// A value that does not fit: mostly of the right type, so that it comes further.
    fn wrong_value(&mut self, schema: &Value) -> Value {
        if self.dice.below(4) == 0 {
            return self.anything(DEPTH);
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return self.pick(&quantities());
        }
        match schema["type"].as_str() {
            Some("string") => self.pick(&texts()),
            Some("integer") => {
                self.pick(&[json!(-1), json!(0), json!(i64::MAX), json!(i64::MIN), json!(4_294_967_296_u64)])
            }
            Some("number") => self.pick(&[json!(-1.5), json!(1e300)]),
            Some("array") => {
                let item = self.value("", &schema["items"]);
                let count = [0, 2, 17, 200][self.below(4)];
                vec![item; count].into()
            }
            Some("object") => {
                self.pick(&[json!({}), json!({"": ""}), json!({"unknown": {"deep": [1, null]}})])
            }
            _ => self.anything(DEPTH),
        }
    }

    fn anything(&mut self, depth: usize) -> Value {
        match self.dice.below(if depth == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => json!(self.dice.below(2) == 0),
            2 => self.pick(&quantities()),
            3 | 4 => self.pick(&texts()),
            5 => vec![self.anything(depth - 1)].into(),
            _ => json!({"key": self.anything(depth - 1)}),
        }
    }

    fn pick(&mut self, values: &[Value]) -> Value {
        values[self.below(values.len())].clone()
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.dice.below(limit as u64)).unwrap_or_default()
    }
}

/// The name by which the items of a list are known.
fn item_name(list: &str) -> &str {
    match list {
        "nodeGroups" => "nodeGroup",
        "accessModes" => "accessMode",
        _ => "",
    }
}

/// What stands in a field of this name, mostly as it should be; `None` where its type says enough.
fn usual(name: &str) -> Option<Vec<Value>> {
    let texts: &[&str] = match name {
        "sourceModelUri" => &[
            "hf://acme/two",
            "hf://acme/none",
            "hf://only-one-part",
            "hf:///x",
            "hf://a/b:",
            "hf://acme/../../x",
            "hf://acme/one?x=1#y",
            " hf://acme/one",
            "s3://bucket/%ZZ",
            "gs://",
            "https://[::1",
            "file:///etc/passwd",
            "unknown://x",
            "no scheme",
            "://",
        ],
        "modelSize" => &["1Gi", "2G", "100M", "9Gi", "11Gi", "1", "8Ei", "1m"],
        "storageLimit" => &["10Gi", "1", "0", "100Ei"],
        "nodeGroup" => &[GROUP, "missing", "Workers", "..", "bad-1", "bad-2"],
        "serviceAccountName" => &["reader", "no-such-account", "Not A Name", ""],
        "accessMode" => &["ReadWriteOnce", "ReadOnlyMany", "Sometimes"],
        "storageClassName" => &["local-storage", ""],
        "volumeMode" => &["Filesystem", "Block"],
        "path" => &["/models/bad", "relative/path", "/", "/models/../etc", ""],
        "operator" => &["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Like"],
        "key" => &[LABEL, "kubernetes.io/hostname", "metadata.name", "not a key!", ""],
        "workloadType" => &["localModelDownloadJob", "initContainer", "other"],
        "prefix" => &["bad://", "z", ""],
        "regex" => &["^bad://.*$", "(", "[z-a]", "z{99999}{99999}", "(?P<n>bad)(?P<n>"],
        "image" => &[IMAGE, "", "UPPER/case:::"],
        "persistentVolumeReclaimPolicy" => &["Retain", "Delete", "Never"],
        _ => return None,
    };
    Some(texts.iter().map(|text| json!(text)).collect())
}

fn texts() -> Vec<Value> {
    let long = "long".repeat(1000);
    let texts = [
        "",
        " ",
        "..",
        "../../etc/passwd",
        "/",
        "a\u{0}b",
        "a\nb: c",
        "ü🦀\u{202e}",
        "{{.}}",
        "%s%n",
        "-",
        "A_B",
        &long,
    ];
    texts.iter().map(|text| json!(text)).collect()
}

fn quantities() -> Vec<Value> {
    let texts = [
        "-1Gi",
        "1e400",
        "NaN",
        "1.5Zi",
        "0x10",
        "",
        " 1Gi",
        "99999999999999999999999Ei",
        "1m",
        "0.0001",
        "1e-400",
    ];
    let numbers = [json!(0), json!(-5), json!(1.5), json!(i64::MAX), json!(1e30)];
    texts.iter().map(|text| json!(text)).chain(numbers).collect()
}

/// Names at the limit and beyond it.
fn names(number: usize) -> Vec<Value> {
    let long =
        |length: usize| json!(format!("{}-{number}", "n".repeat(length - 1 - number.to_string().len())));
    vec![
        long(63),
        long(64),
        long(253),
        long(254),
        json!(format!("dots.in.it.{number}")),
        json!(format!("Upper-{number}")),
        json!(format!("-{number}-")),
        json!(""),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_makes_the_same_objects_and_another_makes_others() {
        let objects = |seed| {
            let mut generator = Generator::new(seed).unwrap();
            (0..50).map(|_| generator.object()).collect::<Vec<_>>()
        };
        assert_eq!(objects(1), objects(1));
        assert_ne!(objects(1), objects(2));
    }
}
