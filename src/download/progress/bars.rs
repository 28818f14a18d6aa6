//! Progress bars: one for all, one for each large file on its way.

use std::collections::BTreeMap;
use std::io::{self, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Progress, ProgressReport};

const TOTAL: &str =
    "{bar:30} {bytes:>10} of {total_bytes:<10} {binary_bytes_per_sec:>12}  {eta:>4} left  {msg}";
const FILE: &str = "  {bar:28} {bytes:>10} of {total_bytes:<10} {wide_msg}";

/// The bars of one download.
pub struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    files: BTreeMap<String, ProgressBar>,
}

impl Bars {
    /// Below what else is written there.
    pub fn new(all: MultiProgress) -> Self {
        let total = all.add(ProgressBar::new(0).with_style(style(TOTAL)));
        Self { all, total, files: BTreeMap::new() }
    }

    /// Draws how far it is.
    pub fn show(&mut self, progress: &Progress, report: &ProgressReport) {
        self.total.set_length(report.bytes_total);
        self.total.set_message(format!("{} of {} files", report.files_done, report.files_total));
        self.total.set_position(report.bytes_done);
        let meters = progress.under_way();
        self.files.retain(|path, bar| {
            let stays = meters.iter().any(|meter| meter.path == *path);
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        for meter in meters {
            let (all, total) = (&self.all, &self.total);
            let bar = self.files.entry(meter.path.clone()).or_insert_with(|| {
                let bar = ProgressBar::new(meter.size).with_style(style(FILE));
                all.insert_before(total, bar.with_message(meter.path.clone()))
            });
            bar.set_position(meter.done.load(std::sync::atomic::Ordering::Relaxed));
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.files.values().for_each(ProgressBar::finish_and_clear);
        self.total.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are valid")
}

/// Standard error, above the bars.
#[derive(Clone)]
pub struct Above(pub MultiProgress);

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    use super::*;
    use crate::download::digest::Digest;
    use crate::download::plan::PlannedFile;

    #[test]
    fn there_is_a_bar_for_each_file_on_its_way_and_one_for_all() {
        let term = InMemoryTerm::new(20, 120);
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::term_like(Box::new(term.clone())));
        let file = |path: &str| PlannedFile::new(path, 2048, Digest::Untold);
        let progress = Progress::new(&[file("a.bin"), file("b.bin")], (0, 0));
        let mut bars = Bars::new(all);
        let meter = progress.begin(&file("a.bin"), 0);
        progress.received(1024, Some(&meter));
        bars.show(&progress, &progress.snapshot());
        let shown = term.contents();
        assert!(shown.contains("1.00 KiB of 2.00 KiB") && shown.contains("a.bin"), "{shown}");
        assert!(shown.contains("1.00 KiB of 4.00 KiB") && shown.contains("0 of 2 files"), "{shown}");
        progress.file_done("a.bin");
        bars.show(&progress, &progress.snapshot());
        let shown = term.contents();
        assert!(!shown.contains("a.bin") && shown.contains("1 of 2 files"), "{shown}");
        drop(bars);
        assert_eq!(term.contents().trim(), "", "they leave nothing behind");
    }
}
