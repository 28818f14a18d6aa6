//! One cache's story: what is asked first, then what is worst, then everything else.

use jiff::Timestamp;

use super::super::fleet::{CopyView, GroupView, State};
use super::super::story::{Happened, Story, Tries, User};
use super::super::text::{Line, Tone, bar, clean, flow, names, wrap};
use super::{
    INDENT, age, bytes, copies, counted, duration, heading, indented, mark, message, percent, plural,
    progress, rate, tone, word,
};

use crate::plan::pass::{DISK_FULL, DISK_NOT_WRITABLE};

/// The columns of a field's name.
const FIELD: usize = 13;
/// The most nodes of one reason with a line of their own.
const NODES: usize = 8;
/// The most reasons that are told in full.
const REASONS: usize = 12;
/// The most lines of a message.
const MESSAGE: usize = 8;
/// The most lines of names.
const NAMES: usize = 3;
/// The most users that are told.
const USERS: usize = 20;

/// The story in lines of at most so many columns.
pub fn story(story: &Story, width: usize) -> Vec<Line> {
    let now = story.time.0;
    let mut lines = super::stale(story.stale.as_deref(), width);
    lines.extend(title(story, now));
    lines.extend(facts(story, width));
    section(&mut lines, "CONDITIONS", conditions(story, width, now));
    section(&mut lines, "NODES", nodes(story, width, now));
    section(&mut lines, "USED BY", users(&story.used_by));
    section(&mut lines, "EVENTS", events(&story.events, width, now));
    if let Some(log) = &story.log {
        let whose = format!("Job {} on {}, pod {}", log.job, log.node, log.pod);
        let whose = wrap(&whose, width.saturating_sub(2), MESSAGE).into_iter();
        let whose = whose.map(|line| Line::of(Tone::Faint, format!("  {line}")));
        let log = log.lines.iter().flat_map(|line| wrap_log(line, width));
        section(&mut lines, "LOG of the Job that failed last", whose.chain(log).collect());
    }
    let notes = story.notes.iter().flat_map(|note| wrap(note, width.saturating_sub(2), MESSAGE));
    let notes = notes.map(|note| Line::of(Tone::Warning, format!("  {note}"))).collect();
    section(&mut lines, "NOT SEEN", notes);
    lines
}

fn section(lines: &mut Vec<Line>, title: &str, of: Vec<Line>) {
    if !of.is_empty() {
        lines.push(Line::new());
        lines.push(heading(title));
        lines.extend(of);
    }
}

/// A line of a log keeps its blanks; it is divided, not cut.
fn wrap_log(line: &str, width: usize) -> Vec<Line> {
    let line = clean(line);
    if console::measure_text_width(&line) + 2 <= width {
        return vec![Line::of(Tone::Plain, format!("  {line}"))];
    }
    wrap(&line, width.saturating_sub(2), MESSAGE)
        .iter()
        .map(|line| Line::of(Tone::Plain, format!("  {line}")))
        .collect()
}

fn title(story: &Story, now: Timestamp) -> Vec<Line> {
    let cache = &story.cache;
    let line = Line::of(tone(cache.state), mark(cache.state)).add(Tone::Plain, " ");
    let line = line.add(Tone::Strong, cache.key().to_string());
    let made = story.created.as_ref().map(|made| format!(", made {} ago", age(made.0, now)));
    let deleting = if cache.deleting { ", in deletion" } else { "" };
    let rest = format!("  {}{}{deleting}", story.kind, made.unwrap_or_default());
    vec![line.add(Tone::Faint, rest)]
}

fn facts(story: &Story, width: usize) -> Vec<Line> {
    let cache = &story.cache;
    let mut lines = Vec::new();
    let mut fact = |name: &str, text: &str| {
        let room = width.saturating_sub(FIELD + 2).max(8);
        for (index, line) in wrap(text, room, NAMES).iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            lines.push(Line::of(Tone::Faint, format!("  {name:<FIELD$}")).add(Tone::Plain, line));
        }
    };
    fact("source", &cache.source);
    fact("size", cache.size.as_deref().unwrap_or("?"));
    let area = cache.namespace.as_ref().map(|namespace| format!("namespaces/{namespace}/"));
    fact("folder", &format!("{}models/{}", area.unwrap_or_default(), story.storage_key));
    if let Some(credentials) = &story.credentials {
        fact("credentials", credentials);
    }
    for name in &cache.node_groups {
        let known = story.groups.iter().find(|group| group.name == *name);
        fact("node group", &known.map_or_else(|| format!("{name} (not seen)"), group));
    }
    let counts = &cache.copies;
    let complete = format!("{} of {} complete", counts.complete, copies(counts.total));
    let mut pieces = vec![Line::of(Tone::Plain, complete)];
    pieces.extend(counted(counts));
    for (index, line) in flow(pieces, " · ", width.saturating_sub(FIELD + 2)).into_iter().enumerate() {
        let name = if index == 0 { "copies" } else { "" };
        lines.push(Line::of(Tone::Faint, format!("  {name:<FIELD$}")).join(line));
    }
    lines.extend((!cache.warm && counts.total > 0).then(|| all(story)));
    lines
}

fn all(story: &Story) -> Line {
    let cache = &story.cache;
    let part = cache.part();
    let (full, rest) = bar(part, 20);
    let pace = cache.bytes_per_second.map(|pace| format!("  {}", rate(pace)));
    let left = cache.seconds_left.map(|left| format!("  {} left", duration(left)));
    let tail = format!(" {}{}{}", percent(part), pace.unwrap_or_default(), left.unwrap_or_default());
    let line = Line::of(Tone::Faint, format!("  {:<FIELD$}", "progress")).add(tone(cache.state), full);
    line.add(Tone::Faint, rest).add(Tone::Plain, tail)
}

fn group(group: &GroupView) -> String {
    let text = |text: &Option<String>| super::room(text.as_deref());
    let path = group.path.as_ref().map(|path| format!(", at {path}")).unwrap_or_default();
    format!(
        "{}: {} used of {} on its fullest node, {} available{path}",
        group.name,
        text(&group.used),
        text(&group.limit),
        text(&group.available)
    )
}

fn conditions(story: &Story, width: usize, now: Timestamp) -> Vec<Line> {
    let mut lines = Vec::new();
    for condition in &story.conditions {
        let is_good = (condition.type_ == "Ready") == (condition.status == "True");
        let tone = if is_good { Tone::Plain } else { Tone::Warning };
        let line = Line::of(Tone::Plain, "  ").add(Tone::Strong, &condition.type_);
        let since = age(condition.last_transition_time.0, now);
        let reason = if condition.reason == condition.type_ {
            String::new()
        } else {
            format!(" ({})", condition.reason)
        };
        let line = line.add(tone, format!(" {}{reason}", condition.status));
        lines.push(line.add(Tone::Faint, format!(", for {since}")));
        lines.extend(message(&condition.message, width, MESSAGE));
    }
    for group in &story.groups {
        for problem in &group.problems {
            lines.push(Line::of(Tone::Warning, format!("  node group {}: {}", group.name, problem.reason)));
            lines.extend(message(&problem.message, width, MESSAGE));
        }
    }
    lines
}

fn nodes(story: &Story, width: usize, now: Timestamp) -> Vec<Line> {
    let (complete, others): (Vec<&CopyView>, Vec<&CopyView>) =
        story.cache.nodes.iter().partition(|copy| copy.state == State::Complete);
    let same = |a: &&CopyView, b: &&CopyView| {
        (a.state, &a.detail.reason, &a.detail.message) == (b.state, &b.detail.reason, &b.detail.message)
    };
    let blocks: Vec<&[&CopyView]> = others.chunk_by(same).collect();
    let mut lines = Vec::new();
    for block in blocks.iter().take(REASONS) {
        lines.extend(self::block(block, story, width, now));
    }
    let rest: usize = blocks.iter().skip(REASONS).map(|block| block.len()).sum();
    if rest > 0 {
        lines.push(Line::of(
            Tone::Faint,
            format!("  and {} with other messages", plural(rest, "node", "nodes")),
        ));
    }
    for disk in &story.disks {
        lines.push(Line::of(
            Tone::Bad,
            format!("✗ disk of group {} on {}: {}", disk.node_group, disk.node, disk.reason),
        ));
        lines.extend(message(&disk.message, width, MESSAGE));
    }
    if complete.len() <= NODES {
        lines.extend(complete.iter().map(|copy| finished(copy, now)));
    } else {
        lines.extend(many(&complete, width));
    }
    lines
}

/// Nodes with the same to say, then what that is, then what to do.
fn block(block: &[&CopyView], story: &Story, width: usize, now: Timestamp) -> Vec<Line> {
    let Some(first) = block.first() else { return Vec::new() };
    let mut lines: Vec<Line> = block.iter().take(NODES).map(|copy| unfinished(copy, story, now)).collect();
    if block.len() > NODES {
        lines.extend(many(&block[NODES..], width));
    }
    lines.extend(first.detail.message.iter().flat_map(|text| message(text, width, MESSAGE)));
    let tries = story.tries.get(&first.node);
    for (text, command) in advice(first, tries, story) {
        let text = wrap(&text, width.saturating_sub(INDENT), MESSAGE);
        lines.extend(text.iter().map(|line| indented(line)));
        lines.extend(command.iter().flat_map(|text| self::command(text, width)));
    }
    lines
}

/// A command as it can be copied into a shell, also from several lines.
fn command(text: &str, width: usize) -> Vec<Line> {
    let lines = wrap(text, width.saturating_sub(INDENT + 4), MESSAGE);
    let last = lines.len().saturating_sub(1);
    let continued = |index| if index < last { " \\" } else { "" };
    let line = |(index, line): (usize, &String)| {
        Line::of(Tone::Plain, "      ").add(Tone::Strong, format!("{line}{}", continued(index)))
    };
    lines.iter().enumerate().map(line).collect()
}

fn many(copies: &[&CopyView], width: usize) -> Vec<Line> {
    let Some(first) = copies.first() else { return Vec::new() };
    let state = first.state;
    let line = Line::of(tone(state), mark(state)).add(Tone::Plain, " ");
    let count = plural(copies.len(), "node", "nodes");
    let more = format!("{count} {}", if state == State::Complete { "complete" } else { word(state) });
    let room = width.saturating_sub(INDENT);
    let on = names(copies.iter().map(|copy| copy.node.as_str()), room * NAMES - room / 2);
    let on = wrap(&on, room, NAMES).into_iter();
    let on = on.map(|line| Line::of(Tone::Faint, " ".repeat(INDENT) + &line));
    [line.add(tone(state), more)].into_iter().chain(on).collect()
}

fn node(copy: &CopyView) -> Line {
    let line = Line::of(tone(copy.state), mark(copy.state)).add(Tone::Plain, " ");
    line.add(Tone::Strong, &copy.node).add(Tone::Plain, "  ")
}

fn unfinished(copy: &CopyView, story: &Story, now: Timestamp) -> Line {
    let reason = copy.detail.reason.as_ref().filter(|_| copy.state != State::NodeNotReady);
    let reason = reason.map(|reason| format!(" ({reason})"));
    if copy.state == State::Downloading {
        let line = node(copy).join(progress(copy));
        return reason.into_iter().fold(line, |line, reason| line.add(Tone::Warning, reason));
    }
    let line =
        node(copy).add(tone(copy.state), word(copy.state)).add(Tone::Plain, reason.unwrap_or_default());
    let Some(tries) = story.tries.get(&copy.node) else { return line };
    let failed = tries.attempts.map(|count| {
        let times = u64::try_from(count).unwrap_or(0);
        format!(", {times} {} so far", if times == 1 { "attempt" } else { "attempts" })
    });
    let next = tries.next_try.as_ref().map(|next| match next.0.duration_since(now).as_secs() {
        seconds @ 1.. => format!(", next try in {}", duration(u64::try_from(seconds).unwrap_or(0))),
        _ => ", next try is due".into(),
    });
    line.add(Tone::Faint, failed.unwrap_or_default() + &next.unwrap_or_default())
}

fn finished(copy: &CopyView, now: Timestamp) -> Line {
    let detail = &copy.detail;
    let size = detail.bytes_total.map(|total| format!(", {}", bytes(total)));
    let since = detail.finished.as_ref().map(|at| format!(", since {}", age(at.0, now)));
    let took = detail.started.as_ref().zip(detail.finished.as_ref());
    let took = took.and_then(|(begun, ended)| u64::try_from(ended.0.duration_since(begun.0).as_secs()).ok());
    let took = took.map(|seconds| format!(", took {}", duration(seconds)));
    let rest: String = [size, since, took].into_iter().flatten().collect();
    node(copy).add(Tone::Good, "complete").add(Tone::Faint, rest)
}

/// What to do about copies, beside what their message says, each with a command.
fn advice(copy: &CopyView, tries: Option<&Tries>, story: &Story) -> Vec<(String, Option<String>)> {
    let namespace = &story.job_namespace;
    let job = tries.and_then(|tries| tries.job.as_ref());
    match (copy.state, job) {
        // No new Job helps a disk.
        (State::Failed, _) if is_of_disk(copy) => {
            vec![("retried automatically once the disk is fixed".to_owned(), None)]
        }
        (State::Failed, Some(job)) => {
            let text = "retried automatically once the cause is fixed; to retry at once".to_owned();
            vec![(text, Some(format!("kubectl delete job -n {namespace} {job}")))]
        }
        (State::NodeNotReady, _) => {
            let text = "the copy counts again when the node is ready".to_owned();
            vec![(text, Some(format!("kubectl describe node {}", copy.node)))]
        }
        (State::Waiting, Some(job)) => {
            let text = format!("Job {job} has no running pod yet");
            vec![(text, Some(format!("kubectl describe pods -n {namespace} -l job-name={job}")))]
        }
        (State::Waiting, None) if copy.detail.reason.is_none() => {
            let text =
                "the agent has not created a Job yet; if that lasts, check that the agents run".to_owned();
            vec![(text, Some("kubectl get localmodelnodegroups,daemonsets -A".into()))]
        }
        _ => Vec::new(),
    }
}

fn is_of_disk(copy: &CopyView) -> bool {
    let of_disk = [DISK_FULL, DISK_NOT_WRITABLE, "DiskError"];
    copy.detail.reason.as_deref().is_some_and(|reason| of_disk.contains(&reason))
}

fn users(users: &[User]) -> Vec<Line> {
    let line = |user: &User| {
        let namespace = user.name.namespace.as_deref().unwrap_or_default();
        format!("  {} {namespace}/{}", user.kind, user.name.name.as_deref().unwrap_or_default())
    };
    let mut lines: Vec<Line> =
        users.iter().take(USERS).map(|user| Line::of(Tone::Plain, line(user))).collect();
    if users.len() > USERS {
        lines.push(Line::of(Tone::Faint, format!("  and {} more", users.len() - USERS)));
    }
    lines
}

fn events(events: &[Happened], width: usize, now: Timestamp) -> Vec<Line> {
    let mut lines = Vec::new();
    for event in events {
        let when = event.time.as_ref().map(|at| format!("{} ago", age(at.0, now)));
        let line = Line::of(Tone::Faint, format!("  {:<12}", when.unwrap_or_default()));
        let tone = if event.warning { Tone::Warning } else { Tone::Plain };
        let times = if event.count > 1 { format!(" ({} times)", event.count) } else { String::new() };
        lines.push(line.add(tone, &event.reason).add(Tone::Faint, times));
        lines.extend(message(&event.message, width, NAMES));
    }
    lines
}
