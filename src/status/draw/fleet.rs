//! The fleet: a line that sums up, the reasons, the caches, the room. However large it is, it stays as long
//! as a person reads.

use std::collections::BTreeSet;

use super::super::fleet::{CacheView, CopyView, DiskView, Fleet, State, Told};
use super::super::text::{Cell, Line, Side, Table, Tone, flow, names, wrap};
use super::{
    INDENT, counted, duration, heading, indented, mark, message, number, percent, plural, progress, rate,
    tone, why,
};
use crate::plan::node_group::DISK_UNUSABLE;

/// From this width on a cache's row ends with its source.
const WIDE: usize = 120;
/// The most reasons that are told.
const REASONS: usize = 8;
/// The most lines of a reason's message.
const MESSAGE: usize = 3;
/// The most caches that are not warm and have rows; below them the rest is counted.
const ROWS: usize = 40;
/// The most caches whose copies are told by state and reason; half as many where there are more.
const DETAILED: usize = 12;
/// The most lines of one cache's copies.
const LINES: usize = 8;
/// The most downloads of one cache with a bar of their own.
const BARS: usize = 4;
/// The most warm caches that have rows; more are summed up.
const WARM: usize = 20;
/// The most node groups that are told.
const GROUPS: usize = 15;
/// The most kinds of disk trouble that are told.
const DISKS: usize = 6;

/// The fleet in lines of at most so many columns.
pub fn fleet(fleet: &Fleet, width: usize) -> Vec<Line> {
    let mut lines = super::stale(fleet.stale.as_deref(), width);
    lines.extend(summary(fleet, width));
    section(&mut lines, "WHY NOT", reasons(fleet, width));
    section(&mut lines, "DISKS THAT CANNOT BE USED", disks(&untold(fleet), width));
    section(&mut lines, "CACHES", caches(&fleet.caches, width));
    section(&mut lines, "ROOM ON THE FULLEST NODE OF EACH GROUP", groups(fleet, width));
    section(&mut lines, "NODES WITH COPIES AND NO AGENT", left_behind(&fleet.left_behind, width));
    let notes = fleet.notes.iter().flat_map(|note| wrap(note, width.saturating_sub(2), MESSAGE));
    let notes: Vec<Line> = notes.map(|note| Line::of(Tone::Warning, format!("  {note}"))).collect();
    section(&mut lines, "NOT SEEN", notes);
    lines
}

/// The disks whose trouble no copy tells.
fn untold(fleet: &Fleet) -> Vec<DiskView> {
    let is_told = |disk: &&DiskView| {
        let mut copies = fleet.caches.iter().flat_map(|cache| &cache.nodes);
        copies.any(|copy| copy.node == disk.node && copy.detail.reason.as_ref() == Some(&disk.reason))
    };
    fleet.disks.iter().filter(|disk| !is_told(disk)).cloned().collect()
}

/// A node that lost its label keeps its files, and nobody looks after them.
fn left_behind(nodes: &[String], width: usize) -> Vec<Line> {
    if nodes.is_empty() {
        return Vec::new();
    }
    let names = names(nodes.iter().map(String::as_str), width.saturating_sub(2));
    let advice = "they belong to no node group any more: their files stay and are neither checked nor erased; label them again, or delete the files by hand";
    let mut lines = vec![Line::of(Tone::Warning, format!("! {names}"))];
    lines.extend(message(advice, width, MESSAGE));
    lines
}

fn section(lines: &mut Vec<Line>, title: &str, of: Vec<Line>) {
    if !of.is_empty() {
        lines.push(Line::new());
        lines.push(heading(title));
        lines.extend(of);
    }
}

fn summary(fleet: &Fleet, width: usize) -> Vec<Line> {
    if fleet.caches.is_empty() {
        let nothing = "no model is to be kept warm: make a LocalModelCache, then look again";
        return wrap(nothing, width, MESSAGE).iter().map(|line| Line::of(Tone::Plain, line)).collect();
    }
    let warm = fleet.caches.iter().filter(|cache| cache.warm).count();
    let mut all = super::Counts::default();
    for cache in &fleet.caches {
        let copies = &cache.copies;
        all.failed += copies.failed;
        all.waiting += copies.waiting;
        all.node_not_ready += copies.node_not_ready;
        all.downloading += copies.downloading;
        all.complete += copies.complete;
        all.total += copies.total;
    }
    let nodes: BTreeSet<&str> =
        fleet.caches.iter().flat_map(|cache| &cache.nodes).map(|copy| copy.node.as_str()).collect();
    let of = plural(fleet.caches.len(), "cache", "caches");
    let on = if nodes.is_empty() {
        String::new()
    } else {
        format!(" on {}", plural(nodes.len(), "node", "nodes"))
    };
    let copies = format!("{} of {} complete{on}", number(all.complete), super::copies(all.total));
    let mut pieces =
        vec![Line::of(Tone::Strong, format!("{warm} of {of} warm")), Line::of(Tone::Plain, copies)];
    pieces.extend(counted(&all));
    let pace = fleet.caches.iter().filter_map(|cache| cache.bytes_per_second).reduce(u64::saturating_add);
    pieces.extend(pace.map(|pace| Line::of(Tone::Plain, rate(pace))));
    flow(pieces, " · ", width)
}

fn reasons(fleet: &Fleet, width: usize) -> Vec<Line> {
    let mut lines: Vec<Line> =
        fleet.reasons.iter().take(REASONS).flat_map(|reason| why(reason, width, MESSAGE)).collect();
    let more = fleet.reasons.len().saturating_sub(REASONS);
    if more > 0 {
        lines.push(faint(format!("  and {}", plural(more, "more reason", "more reasons"))));
    }
    lines
}

fn faint(text: impl AsRef<str>) -> Line {
    Line::of(Tone::Faint, text)
}

fn caches(caches: &[CacheView], width: usize) -> Vec<Line> {
    let (warm, others): (Vec<&CacheView>, Vec<&CacheView>) =
        caches.iter().partition(|cache| cache.state == State::Complete);
    if others.is_empty() && warm.len() > WARM {
        return summed(&warm, width);
    }
    if caches.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(&[
        (Side::Left, "CACHE"),
        (Side::Right, "SIZE"),
        (Side::Right, "READY"),
        (Side::Left, "PROGRESS"),
        (Side::Right, ""),
        (Side::Right, "RATE"),
        (Side::Right, "LEFT"),
        (Side::Left, "SOURCE"),
    ]);
    let detailed = if others.len() > DETAILED { DETAILED / 2 } else { DETAILED };
    for (index, cache) in others.iter().take(ROWS).enumerate() {
        table.row(row(cache, width));
        if index < detailed {
            table.below(detail(cache, width));
        }
    }
    if others.len() > ROWS {
        let more = plural(others.len() - ROWS, "more cache is", "more caches are");
        table.below([faint(format!("  {more} not warm; the reasons above count them too"))]);
    }
    if warm.len() <= WARM {
        for cache in &warm {
            table.row(row(cache, width));
        }
    } else {
        table.below(summed(&warm, width));
    }
    table.draw(width)
}

fn row(cache: &CacheView, width: usize) -> Vec<Cell> {
    let counts = &cache.copies;
    let name = cache.key().to_string() + if cache.deleting { " (in deletion)" } else { "" };
    let is_warm = cache.state == State::Complete;
    let tone = tone(cache.state);
    let (bar, part) = if is_warm {
        (Cell::empty(), Cell::empty())
    } else {
        let part = cache.part();
        (Cell::Bar(tone, part), Cell::text(Tone::Plain, percent(part)))
    };
    let pace = cache.bytes_per_second.map(rate).unwrap_or_default();
    let left = cache.seconds_left.map(duration).unwrap_or_default();
    let source = if width < WIDE { "" } else { cache.source.as_str() };
    vec![
        Cell::text(tone, mark(cache.state)),
        Cell::text(if is_warm { Tone::Plain } else { Tone::Strong }, name),
        Cell::text(Tone::Plain, cache.size.as_deref().unwrap_or("?")),
        Cell::text(Tone::Plain, format!("{}/{}", counts.complete, counts.total)),
        bar,
        part,
        Cell::text(Tone::Plain, pace),
        Cell::text(Tone::Plain, left),
        Cell::text(Tone::Faint, source),
    ]
}

/// The copies of a cache by state and reason, and the downloads that will take longest.
fn detail(cache: &CacheView, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let of = |state| cache.nodes.iter().filter(move |copy| copy.state == state).collect::<Vec<&CopyView>>();
    for problem in &cache.problems {
        lines.push(indented(&problem.reason));
    }
    for state in [State::Failed, State::Waiting, State::NodeNotReady] {
        for copies in of(state).chunk_by(|a, b| a.detail.reason == b.detail.reason) {
            lines.push(grouped(copies, state, width));
        }
    }
    let mut moving = of(State::Downloading);
    moving.sort_by_key(|copy| std::cmp::Reverse(copy.seconds_left.unwrap_or(u64::MAX)));
    for copy in moving.iter().take(BARS) {
        let node = Line::of(Tone::Plain, " ".repeat(INDENT)).add(Tone::Busy, "downloading");
        lines.push(node.add(Tone::Plain, format!(": {}  ", copy.node)).join(progress(copy)));
    }
    if moving.len() > BARS {
        let rest = grouped(&moving[BARS..], State::Downloading, width);
        lines.push(rest);
    }
    let complete = of(State::Complete);
    if !complete.is_empty() {
        lines.push(grouped(&complete, State::Complete, width));
    }
    if lines.len() > LINES {
        let rest = lines.len() - LINES + 1;
        lines.truncate(LINES - 1);
        lines.push(faint(format!("    and {rest} more; `localmodel status {}` tells all", cache.key())));
    }
    lines
}

/// Copies of one state and reason, on one line.
fn grouped(copies: &[&CopyView], state: State, width: usize) -> Line {
    let count = super::in_state(copies.len(), state);
    let line = Line::of(Tone::Plain, " ".repeat(INDENT)).add(tone(state), count);
    let reason = copies.first().and_then(|copy| copy.detail.reason.as_deref());
    let line = match reason.filter(|_| state < State::Downloading) {
        Some(reason) if state != State::NodeNotReady => line.add(Tone::Plain, format!(" ({reason})")),
        _ => line,
    };
    let room = width.saturating_sub(line.width() + 2);
    let on = names(copies.iter().map(|copy| copy.node.as_str()), room);
    line.add(Tone::Plain, ": ").add(Tone::Faint, on)
}

fn summed(warm: &[&CacheView], width: usize) -> Vec<Line> {
    let copies: usize = warm.iter().map(|cache| cache.copies.complete).sum();
    let caches = plural(warm.len(), "cache is", "caches are");
    let sum = format!(" {caches} warm on all nodes, {} in all", super::copies(copies));
    let all: Vec<String> = warm.iter().map(|cache| cache.key().to_string()).collect();
    let room = width.saturating_sub(INDENT);
    let names = names(all.iter().map(String::as_str), room * MESSAGE - room / 2);
    let names = wrap(&names, room, MESSAGE).into_iter();
    let names = names.map(|line| Line::of(Tone::Faint, " ".repeat(INDENT) + &line));
    [Line::of(Tone::Good, "✓").add(Tone::Plain, sum)].into_iter().chain(names).collect()
}

/// What a group says that neither a copy nor a disk has told already.
fn problem(fleet: &Fleet, problem: &Told, width: usize) -> Vec<Line> {
    let is_told = fleet.reasons.iter().any(|why| why.reason.as_ref() == Some(&problem.reason))
        || (problem.reason == DISK_UNUSABLE && !fleet.disks.is_empty());
    if is_told {
        return vec![indented(&format!("{}: see above", problem.reason))];
    }
    message(&format!("{}: {}", problem.reason, problem.message), width, MESSAGE)
}

fn groups(fleet: &Fleet, width: usize) -> Vec<Line> {
    let groups = &fleet.node_groups;
    if groups.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(&[
        (Side::Left, "NODE GROUP"),
        (Side::Right, "LIMIT"),
        (Side::Right, "USED"),
        (Side::Right, "AVAILABLE"),
        (Side::Left, ""),
        (Side::Right, ""),
        (Side::Left, "PATH"),
    ]);
    for group in groups.iter().take(GROUPS) {
        let fine = group.problems.is_empty();
        let state = if fine { State::Complete } else { State::Blocked };
        let text = |text: &Option<String>| Cell::text(Tone::Plain, super::room(text.as_deref()));
        let part = group.part();
        let full = if part.is_some_and(|part| part > 0.9) { Tone::Warning } else { Tone::Good };
        table.row(vec![
            Cell::text(tone(state), mark(state)),
            Cell::text(Tone::Plain, &group.name),
            text(&group.limit),
            text(&group.used),
            text(&group.available),
            part.map_or_else(Cell::empty, |part| Cell::Bar(full, part)),
            part.map_or_else(Cell::empty, |part| Cell::text(Tone::Plain, percent(part))),
            Cell::text(Tone::Faint, group.path.as_deref().unwrap_or_default()),
        ]);
        for problem in &group.problems {
            table.below(self::problem(fleet, problem, width));
        }
    }
    if groups.len() > GROUPS {
        let more = plural(groups.len() - GROUPS, "more group", "more groups");
        table.below([faint(format!("  and {more}"))]);
    }
    table.draw(width)
}

fn disks(disks: &[DiskView], width: usize) -> Vec<Line> {
    let same = |a: &DiskView, b: &DiskView| (&a.node_group, &a.reason) == (&b.node_group, &b.reason);
    let mut kinds: Vec<&[DiskView]> = disks.chunk_by(same).collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.len()));
    let mut lines = Vec::new();
    for kind in kinds.iter().take(DISKS) {
        let Some(first) = kind.first() else { continue };
        let line = Line::of(Tone::Bad, "✗ ").add(Tone::Strong, &first.reason);
        let count = plural(kind.len(), "disk", "disks");
        let line = line.add(Tone::Plain, "  ").add(Tone::Bad, count);
        let line = line.add(Tone::Plain, format!(" of group {}: ", first.node_group));
        let room = width.saturating_sub(line.width());
        let nodes = names(kind.iter().map(|disk| disk.node.as_str()), room);
        lines.push(line.add(Tone::Plain, nodes));
        lines.extend(message(&first.message, width, MESSAGE));
    }
    if kinds.len() > DISKS {
        lines.push(faint(format!(
            "  and {}",
            plural(kinds.len() - DISKS, "more kind of trouble", "more kinds of trouble")
        )));
    }
    lines
}
