//! Text for a terminal: lines made of spans, each with a tone, cut to a width and painted only when asked.
//! Whatever comes from the cluster goes through [`clean`]: nobody's log line moves a reader's cursor.

use console::{Alignment, Style, measure_text_width, pad_str, truncate_str};

/// What a piece of text is to a reader; a colour where there are colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As the terminal has it.
    #[default]
    Plain,
    /// Headings and names.
    Strong,
    /// What is there for those who look closely.
    Faint,
    /// What failed.
    Bad,
    /// What waits for somebody.
    Warning,
    /// What is on its way.
    Busy,
    /// What is as it should be.
    Good,
}

impl Tone {
    fn paint(self, text: &str) -> String {
        let style = Style::new().force_styling(true);
        let style = match self {
            Self::Plain => return text.to_owned(),
            Self::Strong => style.bold(),
            Self::Faint => style.dim(),
            Self::Bad => style.red(),
            Self::Warning => style.yellow(),
            Self::Busy => style.cyan(),
            Self::Good => style.green(),
        };
        style.apply_to(text).to_string()
    }
}

/// How a text is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The columns that a line may take.
    pub width: usize,
    /// The lines that there is room for; all are printed without it.
    pub height: Option<usize>,
    /// Whether tones become colours.
    pub colour: bool,
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(Tone, String)>);

impl Line {
    /// A line with nothing on it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A line that begins with this.
    pub fn of(tone: Tone, text: impl AsRef<str>) -> Self {
        Self::new().add(tone, text)
    }

    /// The same line with more at its end.
    #[must_use]
    pub fn add(mut self, tone: Tone, text: impl AsRef<str>) -> Self {
        self.0.push((tone, clean(text.as_ref())));
        self
    }

    /// The same line with another one at its end.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The columns that it takes.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| measure_text_width(text)).sum()
    }

    fn print(&self, look: Look) -> String {
        let whole = self.width() <= look.width;
        let mut left = look.width;
        let mut printed = String::new();
        for (tone, text) in &self.0 {
            let width = measure_text_width(text);
            // Of a line that is too long, the last column is the ellipsis.
            let fits = if whole { width <= left } else { width < left };
            let text = if fits { text.clone() } else { cut(&format!("{text}…"), left) };
            printed += &if look.colour { tone.paint(&text) } else { text };
            left = left.saturating_sub(width);
            if !fits {
                break;
            }
        }
        printed.truncate(printed.trim_end().len());
        printed
    }
}

/// Lines as they are written; where there are more than there is room for, the last one says how many more.
pub fn print(lines: &[Line], look: Look) -> String {
    let shown = match look.height {
        Some(height) if lines.len() > height => height.saturating_sub(1),
        _ => lines.len(),
    };
    let mut printed: String = lines[..shown].iter().map(|line| line.print(look) + "\n").collect();
    if shown < lines.len() && look.height != Some(0) {
        let more = format!("… {} more lines; a larger window shows them", lines.len() - shown);
        printed += &(Line::of(Tone::Faint, more).print(look) + "\n");
    }
    printed
}

/// The text without what would move a terminal's cursor, change its colours or turn its writing around.
pub fn clean(text: &str) -> String {
    let unseen = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let text = console::strip_ansi_codes(text);
    text.chars().filter(|c| !unseen(*c)).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The text in at most so many columns.
pub fn cut(text: &str, width: usize) -> String {
    if width == 0 { String::new() } else { truncate_str(text, width, "…").into_owned() }
}

/// The text on lines of at most so many columns, and on at most so many lines.
pub fn wrap(text: &str, width: usize, most: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in clean(text).split_whitespace() {
        let mut word = word.to_owned();
        let line = lines.last_mut().map(|line| measure_text_width(line)).unwrap_or_default();
        let gap = usize::from(line > 0);
        if line + gap + measure_text_width(&word) > width && line > 0 {
            lines.push(String::new());
        }
        // A word that no line can hold is divided.
        while measure_text_width(&word) > width {
            let head: String = truncate_str(&word, width, "").into_owned();
            let head = if head.is_empty() { word.chars().take(1).collect() } else { head };
            word = word[head.len()..].to_owned();
            append(&mut lines, &head);
            lines.push(String::new());
        }
        append(&mut lines, &word);
    }
    lines.retain(|line| !line.is_empty());
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            *last = format!("{}…", truncate_str(last, width - 1, ""));
        }
    }
    lines
}

fn append(lines: &mut [String], word: &str) {
    if let Some(line) = lines.last_mut() {
        if !line.is_empty() && !word.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
}

/// The lines that these pieces make when each begins a new line where it does not fit.
pub fn flow(pieces: Vec<Line>, gap: &str, width: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for piece in pieces {
        match lines.last_mut() {
            Some(line) if line.width() + measure_text_width(gap) + piece.width() <= width => {
                *line = std::mem::take(line).add(Tone::Faint, gap).join(piece);
            }
            _ => lines.push(piece),
        }
    }
    lines
}

/// As many of these names as fit, and how many more there are.
pub fn names<'a>(names: impl Iterator<Item = &'a str> + Clone, width: usize) -> String {
    let count = names.clone().count();
    let mut text = String::new();
    for (index, name) in names.enumerate() {
        let joined = if index == 0 { name.to_owned() } else { format!("{text}, {name}") };
        let left = count - index - 1;
        let tail = if left > 0 { format!(" and {left} more") } else { String::new() };
        if index > 0 && measure_text_width(&joined) + tail.len() > width {
            return format!("{text} and {} more", left + 1);
        }
        text = joined;
    }
    text
}

/// A bar that is filled to this part.
pub fn bar(part: f64, width: usize) -> (String, String) {
    // Whole cells only: a bar that looks full is full.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let full = ((part.clamp(0.0, 1.0) * width as f64) as usize).min(width);
    ("█".repeat(full), "░".repeat(width - full))
}

/// What stands in a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A text.
    Text(Tone, String),
    /// A bar that is filled to this part.
    Bar(Tone, f64),
}

impl Cell {
    /// A cell with this text.
    pub fn text(tone: Tone, text: impl AsRef<str>) -> Self {
        Self::Text(tone, clean(text.as_ref()))
    }

    /// A cell with nothing in it.
    pub fn empty() -> Self {
        Self::text(Tone::Plain, "")
    }

    fn width(&self, bar: usize) -> usize {
        match self {
            Self::Text(_, text) => measure_text_width(text),
            Self::Bar(..) => bar,
        }
    }

    fn draw(&self, width: usize, side: Side) -> Line {
        match self {
            Self::Text(tone, text) => {
                let alignment = if side == Side::Right { Alignment::Right } else { Alignment::Left };
                Line::of(*tone, pad_str(&cut(text, width), width, alignment, None))
            }
            Self::Bar(tone, part) => {
                let (full, rest) = bar(*part, width);
                Line::of(*tone, full).add(Tone::Faint, rest)
            }
        }
    }
}

/// On which side of a column its texts begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under each other, with lines of their own between them.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(Side, &'static str)>,
    rows: Vec<Result<Vec<Cell>, Line>>,
}

impl Table {
    /// The columns with their headings. Where there is little room, bars become shorter first, then the
    /// texts of the first column; a column that is empty in all rows is left out.
    pub fn new(columns: &[(Side, &'static str)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(Ok(cells));
    }

    /// Adds lines that belong to the row above.
    pub fn below(&mut self, lines: impl IntoIterator<Item = Line>) {
        self.rows.extend(lines.into_iter().map(Err));
    }

    /// The lines, each after two columns for the mark that the first cell of a row is.
    pub fn draw(self, width: usize) -> Vec<Line> {
        let widths = self.widths(width.saturating_sub(MARK));
        let heading = self.columns.iter().map(|(_, heading)| Cell::text(Tone::Faint, heading));
        let heading = std::iter::once(Cell::empty()).chain(heading).collect();
        let rows = std::iter::once(Ok(heading)).chain(self.rows);
        let columns = &self.columns;
        rows.map(|row| row.map_or_else(|line| line, |cells| drawn(&cells, columns, &widths))).collect()
    }

    fn widths(&self, width: usize) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|_| 0).collect();
        let mut bars = Vec::new();
        for cells in self.rows.iter().flatten() {
            for (index, cell) in cells.iter().skip(1).enumerate().take(widths.len()) {
                widths[index] = widths[index].max(cell.width(BAR));
                if matches!(cell, Cell::Bar(..)) {
                    bars.push(index);
                }
            }
        }
        for (width, (_, heading)) in widths.iter_mut().zip(&self.columns).filter(|(width, _)| **width > 0) {
            *width = (*width).max(heading.len());
        }
        let all = |widths: &[usize]| {
            let seen = widths.iter().filter(|width| **width > 0);
            seen.map(|width| width + GAP).sum::<usize>().saturating_sub(GAP)
        };
        bars.dedup();
        for (index, least) in bars.into_iter().map(|bar| (bar, SHORTEST_BAR)).chain([(0, SHORTEST_NAME)]) {
            let over = all(&widths).saturating_sub(width);
            if let Some(width) = widths.get_mut(index).filter(|width| **width > least) {
                *width = width.saturating_sub(over).max(least);
            }
        }
        widths
    }
}

/// The columns before a row's first text.
const MARK: usize = 2;
/// The columns between two texts.
const GAP: usize = 2;
/// The columns of a bar where there is room.
const BAR: usize = 20;
/// The shortest bar that still says something.
const SHORTEST_BAR: usize = 8;
/// The columns that a name keeps.
const SHORTEST_NAME: usize = 12;

fn drawn(cells: &[Cell], columns: &[(Side, &str)], widths: &[usize]) -> Line {
    let mut line = match cells.first() {
        Some(mark) => mark.draw(1, Side::Left).add(Tone::Plain, " "),
        None => Line::of(Tone::Plain, "  "),
    };
    let texts = cells.iter().skip(1).zip(columns).zip(widths).filter(|(_, width)| **width > 0);
    for (index, ((cell, (side, _)), width)) in texts.enumerate() {
        let gap = if index == 0 { "" } else { "  " };
        line = line.add(Tone::Plain, gap).join(cell.draw(*width, *side));
    }
    line
}

#[cfg(test)]
mod tests;
