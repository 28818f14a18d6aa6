//! `docs/reference.md` says what the code says: it is rendered from the definitions of the objects, the list of
//! reasons and the definitions of the metrics. `UPDATE_REFERENCE=1 cargo test --test reference` writes it. Reasons
//! and log lines are read from the sources: every one has to be listed, and of the form that people search for.

#![allow(clippy::unwrap_used)] // helpers of tests stand outside the tests

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use localmodel::api;
use localmodel::plan::keys::{self, Writer};
use localmodel::plan::reasons::{self, Seen};
use localmodel::telemetry::metrics::{AgentMetrics, Definition, OperatorMetrics};
use regex::Regex;
use serde_json::{Value, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Fields whose inside is Kubernetes' own.
const KUBERNETES: [&str; 4] =
    ["persistentVolumeSpec", "persistentVolumeClaimSpec", "container", "conditions"];

/// A cell of a table on one line.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn kind_of(schema: &Value) -> String {
    if schema["x-kubernetes-int-or-string"] == json!(true) {
        return "quantity".into();
    }
    if let Some(values) = schema["enum"].as_array() {
        let words = values.iter().filter_map(Value::as_str).filter(|word| !word.is_empty());
        return words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", kind_of(&schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => {
            format!("map to {}", kind_of(&schema["additionalProperties"]))
        }
        Some("string") if schema["format"] == "date-time" => "time".into(),
        Some(kind) => kind.into(),
        None => "any".into(),
    }
}

/// The rows of a schema's fields and of those below them.
fn fields(page: &mut String, path: &str, schema: &Value) {
    let required: BTreeSet<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let needed = if required.contains(name.as_str()) { "yes" } else { "" };
        let text = cell(field["description"].as_str().unwrap_or_default());
        writeln!(page, "| `{path}.{name}` | {} | {needed} | {text} |", kind_of(field)).unwrap();
        if KUBERNETES.contains(&name.as_str()) {
            continue;
        }
        fields(page, &format!("{path}.{name}"), field);
        fields(page, &format!("{path}.{name}[]"), &field["items"]);
        fields(page, &format!("{path}.{name}.*"), &field["additionalProperties"]);
    }
}

fn objects(page: &mut String) {
    page.push_str("## Objects\n\nGroup `serving.kserve.io`, version `v1alpha1`. `kubectl get localmodel` lists the objects of all kinds.\n\n");
    for crd in api::crds() {
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let scope = if crd["spec"]["scope"] == "Namespaced" { "In a namespace" } else { "Of the cluster" };
        writeln!(page, "### {kind}\n\n{}", cell(schema["description"].as_str().unwrap_or_default())).unwrap();
        let short = crd["spec"]["names"]["shortNames"][0].as_str();
        let short = short.map(|short| format!("; short name `{short}`")).unwrap_or_default();
        writeln!(page, "{scope}{short}.\n\n| field | type | required | meaning |\n|---|---|---|---|")
            .unwrap();
        for part in ["spec", "status"] {
            fields(page, part, &schema["properties"][part]);
        }
        page.push('\n');
    }
}

fn labels(page: &mut String) {
    for (title, about, writer) in [
        (
            "Labels and annotations that you write",
            "On a pod, or the template of a Deployment, Job or StatefulSet.",
            Writer::User,
        ),
        (
            "Labels and annotations that localmodel writes",
            "For the eye and for selectors; do not change them.",
            Writer::Ours,
        ),
        (
            "Labels and annotations of KServe that localmodel reads",
            "KServe writes them on services that use a cache.",
            Writer::KServe,
        ),
    ] {
        writeln!(page, "## {title}\n\n{about}\n\n| key | kind | on | meaning |\n|---|---|---|---|").unwrap();
        for key in keys::ALL.iter().filter(|key| key.writer == writer) {
            writeln!(page, "| `{}` | {} | {} | {} |", key.key, key.kind, key.on, cell(key.meaning)).unwrap();
        }
        page.push('\n');
    }
}

fn words(page: &mut String, title: &str, about: &str, seen: &[Seen]) {
    writeln!(page, "## {title}\n\n{about}\n\n| word | meaning | what to do |\n|---|---|---|").unwrap();
    for entry in reasons::ALL.iter().filter(|entry| seen.contains(&entry.seen)) {
        writeln!(page, "| `{}` | {} | {} |", entry.reason.as_str(), cell(entry.meaning), cell(entry.remedy))
            .unwrap();
    }
    page.push('\n');
}

fn metrics(page: &mut String, title: &str, about: &str, metrics: &[Definition]) {
    writeln!(page, "## {title}\n\n{about}\n\n| metric | type | labels | meaning |\n|---|---|---|---|")
        .unwrap();
    for metric in metrics {
        let labels = metric.labels.iter().map(|label| {
            let values: Vec<String> = label.values.iter().map(|value| format!("`{value}`")).collect();
            let values = if values.is_empty() { String::new() } else { format!(" ({})", values.join(", ")) };
            format!("`{}`: {}{values}", label.name, cell(label.meaning))
        });
        let labels = labels.collect::<Vec<_>>().join("<br>");
        writeln!(page, "| `{}` | {} | {labels} | {} |", metric.name, metric.kind, cell(metric.help)).unwrap();
    }
    page.push('\n');
}

fn page() -> String {
    let mut page = String::from(
        "# Reference\n\nEvery field, label, annotation, condition, reason, Event and metric. This page is made from the code: \
         `UPDATE_REFERENCE=1 cargo test --workspace --test reference` writes it, and a test compares it.\n\n",
    );
    objects(&mut page);
    labels(&mut page);
    words(
        &mut page,
        "Conditions of caches",
        "Beside `Ready`, which every cache has. Each stands there while it holds, with its type as its reason, \
         and is a Warning Event when it begins.",
        &[Seen::Cache, Seen::Both],
    );
    words(&mut page, "Conditions of node groups", "Beside `Ready`, likewise.", &[Seen::Group, Seen::Both]);
    let about = "A problem of the tables above, or one of these. `DownloadFailed` stands there when a copy \
                 failed; the copy says why.";
    words(&mut page, "Reasons of Ready", about, &[Seen::ReadyCache, Seen::ReadyGroup]);
    words(
        &mut page,
        "Reasons of copies",
        "In the status of a cache by node, and in the status of a LocalModelNode by model. Those of a failed \
         download are the reason of a Warning Event on the cache, too. `Disabled`, `NodeNotReady` and a word of \
         the kubelet's that is not listed can stand there as well.",
        &[Seen::Copy, Seen::Failure],
    );
    words(&mut page, "Reasons of disks", "In `status.disks` of a LocalModelNode.", &[Seen::Disk]);
    words(
        &mut page,
        "Events",
        "Beside the problems and failed downloads of the tables above.",
        &[Seen::Event],
    );
    words(
        &mut page,
        "Reasons of the gate",
        "In the termination message of init container `localmodel-wait`, beside the reasons of copies.",
        &[Seen::Gate],
    );
    let about = "At `/metrics`, port 8081 of the operator's pods. Those of caches and groups come from the \
                 operator that leads. Beside them stand the usual `process_*` metrics.";
    metrics(&mut page, "Metrics of the operator", about, &OperatorMetrics::default().definitions());
    let about = "At `/metrics`, port 8081 of the agents' pods. All have the labels `node` and `node_group`, too, except the usual `process_*` metrics.";
    metrics(&mut page, "Metrics of agents", about, &AgentMetrics::new("node", "group").definitions());
    page.trim_end().to_owned() + "\n"
}

#[test]
fn the_page_says_what_the_code_says() {
    let path = Path::new(ROOT).join("docs/reference.md");
    let page = page();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let rows = |text: &str| text.lines().map(String::from).collect::<BTreeSet<_>>();
    let (wanted, found) = (rows(&page), rows(&written));
    let missing: Vec<_> = wanted.difference(&found).collect();
    let stale: Vec<_> = found.difference(&wanted).collect();
    assert!(written == page, "UPDATE_REFERENCE=1 writes it anew; missing: {missing:#?}\nstale: {stale:#?}");
}

/// The sources of the program, without tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

#[test]
fn every_reason_that_the_code_gives_is_listed() {
    let listed: BTreeSet<&str> = reasons::ALL.iter().map(|entry| entry.reason.as_str()).collect();
    let places = [
        r#"Problem::new\(\s*"(\w+)""#,
        r#"Failure::new\(\s*"(\w+)""#,
        r#"Statement::problem\(\s*"(\w+)""#,
        r#"Statement::ready\(\s*\w+,\s*"(\w+)""#,
        r#"\.warn\(\s*[^"]*?,\s*"(\w+)""#,
        r#"(?:reason: |reason.*unwrap_or\(|, reason\.unwrap_or\()(?:Some\()?"(\w+)""#,
        r#"const [A-Z_]+: &str = "([A-Z][a-z]+(?:[A-Z][a-z]+)+)";"#,
        r"=> Reason::(\w+)",
    ];
    let places = places.map(|place| Regex::new(place).unwrap());
    let (mut files, mut given) = (Vec::new(), BTreeSet::new());
    sources(&Path::new(ROOT).join("src"), &mut files);
    for file in files.iter().filter(|file| !file.ends_with("plan/reasons.rs")) {
        let text = fs::read_to_string(file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for found in places.iter().flat_map(|place| place.captures_iter(text)) {
            assert!(
                listed.contains(&found[1]),
                "{}: {} is not in src/plan/reasons.rs: say there what it means",
                file.display(),
                &found[1]
            );
            given.insert(found[1].to_owned());
        }
    }
    assert!(given.len() > 45, "the places where reasons are given are found: {given:?}");
}

#[test]
fn every_label_and_annotation_is_listed() {
    let text = fs::read_to_string(Path::new(ROOT).join("src/plan/names.rs")).unwrap();
    let key = Regex::new(r#"pub const [A-Z_]+: &str = "([a-z.]+kserve\.io/[a-z-]+)";"#).unwrap();
    let listed: BTreeSet<&str> = keys::ALL.iter().map(|key| key.key).collect();
    let found: BTreeSet<&str> =
        key.captures_iter(&text).map(|found| found.get(1).unwrap().as_str()).collect();
    assert!(found.len() > 20, "the keys are found: {found:?}");
    let unlisted: Vec<_> = found.difference(&listed).filter(|key| !key.ends_with("/finalizer")).collect();
    assert!(unlisted.is_empty(), "say in src/plan/keys.rs what they mean: {unlisted:?}");
}

/// The arguments of each log line of a source, with its place.
fn log_lines(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap();
    let begin = Regex::new(r"tracing::(?:trace|debug|info|warn|error)!\(").unwrap();
    let of = |found: regex::Match| {
        let (mut depth, mut in_text) = (1, false);
        let end = text[found.end()..].char_indices().find(|(at, c)| {
            let is_escaped = text[..found.end() + at].ends_with('\\');
            match c {
                '"' if !is_escaped => in_text = !in_text,
                '(' if !in_text => depth += 1,
                ')' if !in_text => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let line = text[..found.start()].lines().count();
        let end = found.end() + end.map_or(0, |(at, _)| at);
        (format!("{}:{line}", path.display()), text[found.end()..end].trim().trim_end_matches(',').to_owned())
    };
    begin.find_iter(&text).map(of).collect()
}

/// What a line is about stands in its fields, so that logs can be searched for it and lines of one kind be
/// counted; and no field prints the inside of a value, where a secret may be (O4).
#[test]
fn every_log_line_is_a_constant_sentence_with_readable_fields() {
    let mut files = Vec::new();
    sources(&Path::new(ROOT).join("src"), &mut files);
    let lines: Vec<_> = files.iter().flat_map(|file| log_lines(file)).collect();
    assert!(lines.len() > 60, "the log lines are found: {}", lines.len());
    let sentence = Regex::new(r#"(?s)(?:^|,\s*)"[^"{}]+"$"#).unwrap();
    let inside = Regex::new(r"(?:^|[\s,=(])\?\w").unwrap();
    for (place, arguments) in lines {
        assert!(sentence.is_match(&arguments), "{place}: names go into fields: {arguments}");
        let fields = sentence.replace(&arguments, "");
        assert!(!inside.is_match(&fields), "{place}: a field prints the inside of a value: {arguments}");
    }
}
