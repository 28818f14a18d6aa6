//! From views to lines. Marks and words say what colours say: nothing is told by a colour alone.

mod fleet;
mod story;

use indicatif::HumanBytes;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::fleet::{CopyView, Counts, State, Why};
use super::text::{Line, Tone, bar, names, wrap};
use crate::api::quantity;

pub use fleet::fleet;
pub use story::story;

/// The columns that belong to a text are indented by.
const INDENT: usize = 4;

/// The sign before a row.
fn mark(state: State) -> &'static str {
    match state {
        State::Failed => "✗",
        State::Blocked | State::Waiting | State::NodeNotReady => "!",
        State::Downloading => "↓",
        State::Complete => "✓",
    }
}

fn tone(state: State) -> Tone {
    match state {
        State::Failed => Tone::Bad,
        State::Blocked | State::Waiting | State::NodeNotReady => Tone::Warning,
        State::Downloading => Tone::Busy,
        State::Complete => Tone::Good,
    }
}

/// The state of copies, after their number.
fn word(state: State) -> &'static str {
    match state {
        State::Failed => "failed",
        State::Blocked | State::Waiting => "waiting",
        State::NodeNotReady => "node NotReady",
        State::Downloading => "downloading",
        State::Complete => "complete",
    }
}

/// A number of copies in this state.
fn in_state(count: usize, state: State) -> String {
    match state {
        State::NodeNotReady => plural(count, "on a NotReady node", "on NotReady nodes"),
        state => plural(count, word(state), word(state)),
    }
}

/// Why all that follows may be stale, before anything else.
fn stale(stale: Option<&str>, width: usize) -> Vec<Line> {
    let lines = stale.map(|text| wrap(text, width, 3)).unwrap_or_default();
    lines.iter().map(|line| Line::of(Tone::Bad, line)).collect()
}

/// A quantity in the unit of all others: a node group may say `1700G`, and what is left in `Ki`.
fn room(quantity: Option<&str>) -> String {
    let Some(text) = quantity else { return "?".into() };
    let bytes = quantity::bytes(&Quantity(text.into())).ok();
    bytes.map_or_else(|| text.into(), quantity::human)
}

fn heading(text: &str) -> Line {
    Line::of(Tone::Strong, text)
}

fn indented(text: &str) -> Line {
    Line::of(Tone::Plain, " ".repeat(INDENT)).add(Tone::Plain, text)
}

/// A message below what it is about.
fn message(text: &str, width: usize, most: usize) -> Vec<Line> {
    wrap(text, width.saturating_sub(INDENT), most).iter().map(|line| indented(line)).collect()
}

/// A number of things.
fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// A number with its thousands apart.
fn number(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn copies(count: usize) -> String {
    plural(count, "copy", "copies")
}

/// The counts that are not zero, the worst first.
fn counted(counts: &Counts) -> Vec<Line> {
    let all = [
        (counts.failed, State::Failed),
        (counts.waiting, State::Waiting),
        (counts.node_not_ready, State::NodeNotReady),
        (counts.downloading, State::Downloading),
    ];
    let some = all.into_iter().filter(|(count, _)| *count > 0);
    some.map(|(count, state)| Line::of(tone(state), in_state(count, state))).collect()
}

/// How far a download is and how long it will take; where a line is cut, what matters least is lost.
fn progress(copy: &CopyView) -> Line {
    let detail = &copy.detail;
    let (Some(done), Some(total @ 1..)) = (detail.bytes_done, detail.bytes_total) else {
        return Line::of(Tone::Faint, "no bytes are reported yet");
    };
    let part = part(done, total);
    let (full, rest) = bar(part, 12);
    let left = copy.seconds_left.map(|left| format!("  {} left", duration(left)));
    let pace = copy.bytes_per_second.map(|pace| format!("  {}", rate(pace)));
    let tail = [left, pace].into_iter().flatten().collect::<String>();
    Line::of(Tone::Busy, full)
        .add(Tone::Faint, rest)
        .add(Tone::Plain, format!(" {}{tail}  of {}", percent(part), bytes(total)))
}

#[expect(clippy::cast_precision_loss)]
fn part(done: i64, total: i64) -> f64 {
    done as f64 / total.max(1) as f64
}

/// Whole per cent, rounded down: what says 100 is complete.
#[expect(clippy::cast_possible_truncation)]
fn percent(part: f64) -> String {
    format!("{:>3} %", (part.clamp(0.0, 1.0) * 100.0) as i64)
}

fn bytes(count: i64) -> String {
    HumanBytes(u64::try_from(count).unwrap_or(0)).to_string()
}

fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", HumanBytes(bytes_per_second))
}

/// A time in its two largest units.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {}s", seconds % 60),
        3600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// How long ago; a clock that is behind the cluster's sees what happened now.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    duration(u64::try_from(now.duration_since(then).as_secs()).unwrap_or(0))
}

/// A reason, whom it concerns, and what is said about it.
fn why(why: &Why, width: usize, most: usize) -> Vec<Line> {
    let tone = tone(why.state);
    let reason = match (&why.reason, why.state) {
        (Some(reason), _) => reason.as_str(),
        (None, State::Failed) => "no reason is recorded",
        (None, State::NodeNotReady) => "NodeNotReady",
        (None, _) => "the download has not begun",
    };
    let count = match (why.state, why.copies) {
        (State::Blocked, _) => plural(why.caches.len(), "cache", "caches"),
        (State::NodeNotReady, number) => copies(number),
        (state, number) => format!("{} {}", copies(number), word(state)),
    };
    let line = Line::of(tone, mark(why.state)).add(Tone::Plain, " ").add(Tone::Strong, reason);
    let line = line.add(Tone::Plain, "  ").add(tone, count);
    let whom = whom(why, width / 2);
    let one = line.clone().add(Tone::Plain, format!(": {whom}"));
    let mut lines = if one.width() <= width { vec![one] } else { vec![line, indented(&whom)] };
    let advice = (why.reason.is_none() && why.state == State::Failed)
        .then_some("`localmodel status CACHE` reads it from the Job that failed");
    if let Some(text) = why.message.as_deref().or(advice) {
        lines.extend(message(text, width, most));
    }
    lines
}

fn whom(why: &Why, width: usize) -> String {
    let some = |all: &std::collections::BTreeSet<String>| names(all.iter().map(String::as_str), width);
    let (caches, nodes) = (some(&why.caches), some(&why.nodes));
    if nodes.is_empty() { caches } else { format!("{caches} on {nodes}") }
}

#[cfg(test)]
mod tests;
