//! `localmodel status`: what is warm, where, and why not, on a terminal or for a script. Reads, makes a view,
//! draws it; the view and the drawing are functions of values.

mod draw;
mod fleet;
mod objects;
mod pace;
mod read;
mod story;
mod text;

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use clap::ValueEnum;
use console::Term;
use jiff::Timestamp;
use kube::Client;
use serde::Serialize;

use crate::error::{Doing, Error};
use crate::plan::names::CacheKey;
use pace::History;
use text::{Line, Look, Tone};

/// The columns of what is no terminal.
const NO_TERMINAL: usize = 120;
/// Clears a terminal.
const CLEAR: &str = "\x1b[2J";
/// Moves its cursor to the first line.
const HOME: &str = "\x1b[H";
/// Clears what is right of the cursor.
const CLEAR_LINE: &str = "\x1b[K";
/// Clears what is below the cursor.
const CLEAR_BELOW: &str = "\x1b[J";

/// Show what is warm, where, and why not: of all caches, or all about one.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The cache, as NAME or NAMESPACE/NAME; all of them without it
    cache: Option<String>,

    /// The namespace of the cache; without one, of all namespace caches show those of this namespace only
    #[arg(short, long)]
    namespace: Option<String>,

    /// Look again and again, until Ctrl-C
    #[arg(short, long)]
    watch: bool,

    /// How many seconds lie between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,

    /// What to print: text for people, or JSON for scripts (with --watch, a line for each look)
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// The context of the kubeconfig; the current one without it
    #[arg(long)]
    context: Option<String>,

    /// The operator's namespace, whose settings say where download Jobs are
    #[arg(long, value_name = "NAMESPACE", default_value = "kserve")]
    operator_namespace: String,

    /// How many lines of a failed Job's log to show
    #[arg(long, value_name = "LINES", default_value_t = 10)]
    log_lines: u32,

    /// The columns to fill; those of the terminal without it
    #[arg(long)]
    width: Option<usize>,
}

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Runs the subcommand.
pub async fn run(args: Args) -> Result<(), Error> {
    args.key()?;
    let client = read::client(args.context.clone()).await?;
    let mut out = std::io::stdout();
    let shown = show(&client, &args, Screen::here, &mut out);
    let shown = tokio::select! {
        shown = shown => shown,
        () = crate::shutdown_signal(), if args.watch => Ok(()),
    };
    match shown {
        // Whoever reads has seen enough.
        Err(Error::Disk { source, .. }) if source.kind() == ErrorKind::BrokenPipe => Ok(()),
        shown => shown,
    }
}

impl Args {
    fn key(&self) -> Result<Option<CacheKey>, Error> {
        let Some(cache) = &self.cache else { return Ok(None) };
        let (namespace, name) = match cache.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (self.namespace.as_deref(), cache.as_str()),
        };
        if name.is_empty() || name.contains('/') || namespace.is_some_and(str::is_empty) {
            return Err(Error::Setup(format!("{cache:?} names no cache: write NAME or NAMESPACE/NAME")));
        }
        let namespace = namespace.map(Into::into);
        Ok(Some(CacheKey { namespace, name: name.into() }))
    }

    /// A line is as long as the terminal is wide.
    fn look(&self, screen: Screen) -> Look {
        let is_drawn_anew = screen.is_terminal && self.watch;
        let columns = self.width.or(screen.size.map(|(_, columns)| columns.into()));
        Look {
            width: columns.unwrap_or(NO_TERMINAL),
            height: screen
                .size
                .filter(|_| is_drawn_anew)
                .map(|(rows, _)| usize::from(rows).saturating_sub(1)),
            colour: screen.colour,
        }
    }
}

/// What the text is printed on. A window may change its size between two looks.
#[derive(Clone, Copy, Debug, Default)]
struct Screen {
    is_terminal: bool,
    size: Option<(u16, u16)>,
    colour: bool,
}

impl Screen {
    /// Standard output. There are colours on a terminal that has them, unless the environment says
    /// otherwise (<https://no-color.org>).
    fn here() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let size = Term::stdout().size_checked().filter(|(_, columns)| is_terminal && *columns > 0);
        Self { is_terminal, size, colour: is_terminal && !unwanted && !dumb }
    }
}

/// What one look comes to.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum View {
    Fleet(fleet::Fleet),
    Story(Box<story::Story>),
}

impl View {
    fn stale(&self) -> Option<&str> {
        match self {
            Self::Fleet(fleet) => fleet.stale.as_deref(),
            Self::Story(story) => story.stale.as_deref(),
        }
    }

    fn lines(&self, width: usize) -> Vec<Line> {
        match self {
            Self::Fleet(fleet) => draw::fleet(fleet, width),
            Self::Story(story) => draw::story(story, width),
        }
    }
}

/// Looks once, or again and again. What goes wrong between two looks is told and passes.
async fn show(
    client: &Client,
    args: &Args,
    screen: fn() -> Screen,
    out: &mut impl Write,
) -> Result<(), Error> {
    let key = args.key()?;
    let mut history = History::default();
    let mut view = look(client, args, key.as_ref(), &mut history).await?;
    if !args.watch {
        print(&view, args, args.look(screen()), out).doing(|| "printing".into())?;
        // A script must not go on as if all of this were so.
        return view.stale().map_or(Ok(()), |stale| Err(Error::Setup(stale.to_owned())));
    }
    let is_drawn_anew = args.output == Output::Text && screen().is_terminal;
    if is_drawn_anew {
        write!(out, "{CLEAR}").doing(|| "printing".into())?;
    }
    let mut problem = None;
    loop {
        let begun = tokio::time::Instant::now();
        let shown = if is_drawn_anew {
            draw_anew(&view, problem.as_deref(), args, args.look(screen()), out)
        } else {
            print(&view, args, args.look(screen()), out)
        };
        shown.doing(|| "printing".into())?;
        tokio::time::sleep_until(begun + Duration::from_secs(args.every)).await;
        match look(client, args, key.as_ref(), &mut history).await {
            Ok(seen) => (view, problem) = (seen, None),
            Err(error) if is_drawn_anew => problem = Some(error.to_string()),
            Err(error) => eprintln!("error: {error}"),
        }
    }
}

async fn look(
    client: &Client,
    args: &Args,
    key: Option<&CacheKey>,
    history: &mut History,
) -> Result<View, Error> {
    Ok(match key {
        None => {
            let mut notes = Vec::new();
            let (seen, (operator, note), _) = tokio::join!(
                read::fleet(client, args.namespace.as_deref()),
                read::operator(client, &args.operator_namespace),
                read::settings(client, &args.operator_namespace, &mut notes),
            );
            let mut seen = seen?;
            seen.operator = operator;
            seen.notes.extend(note.into_iter().chain(notes));
            let now = Timestamp::now();
            history.see(&seen.caches, now);
            View::Fleet(fleet::fleet(&seen, history, now))
        }
        Some(key) => {
            let (seen, (operator, note)) = tokio::join!(
                read::story(client, key, &args.operator_namespace, args.log_lines),
                read::operator(client, &args.operator_namespace),
            );
            let mut seen = seen?;
            seen.operator = operator;
            seen.notes.extend(note);
            let now = Timestamp::now();
            history.see(std::slice::from_ref(&seen.cache), now);
            View::Story(Box::new(story::story(&seen, history, now)))
        }
    })
}

fn print(view: &View, args: &Args, look: Look, out: &mut impl Write) -> std::io::Result<()> {
    match (args.output, args.watch) {
        (Output::Json, true) => writeln!(out, "{}", serde_json::to_string(view)?)?,
        (Output::Json, false) => writeln!(out, "{}", serde_json::to_string_pretty(view)?)?,
        (Output::Text, watch) => {
            write!(out, "{}", text::print(&view.lines(look.width), look))?;
            if watch {
                writeln!(out)?;
            }
        }
    }
    out.flush()
}

/// Over what was drawn before, without a moment in which nothing is there.
fn draw_anew(
    view: &View,
    problem: Option<&str>,
    args: &Args,
    look: Look,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let time = Timestamp::now().strftime("%H:%M:%S");
    let mut lines = vec![match problem {
        None => Line::of(Tone::Faint, format!("{time} UTC, every {} s; Ctrl-C ends it", args.every)),
        Some(problem) => Line::of(Tone::Bad, format!("{time} UTC, no longer what is: {problem}")),
    }];
    lines.extend(view.lines(look.width));
    let text = text::print(&lines, look).replace('\n', &format!("{CLEAR_LINE}\n"));
    write!(out, "{HOME}{text}{CLEAR_BELOW}")?;
    out.flush()
}

#[cfg(test)]
mod failures;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
