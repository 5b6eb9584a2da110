//! Standard output is data, standard error is talk; the only place that prints.

use crate::exit::Failure;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// Bars at the same time; the rest of the transfers is still reported when done.
const BARS_MAX: usize = 12;

/// Where words go.
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    aside: bool,
    draws: bool,
    bars: MultiProgress,
    shown: RefCell<HashMap<String, ProgressBar>>,
}

impl Output {
    /// Progress is drawn only on a terminal, and only when nobody asked for JSON or quiet.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let drawn = !json && !quiet && std::io::stderr().is_terminal();
        let target = if drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self {
            json,
            quiet,
            aside: false,
            draws: drawn,
            bars: MultiProgress::with_draw_target(target),
            shown: RefCell::default(),
        }
    }

    /// For work before another program's: facts are talk then, as standard output is that program's; nobody reads JSON.
    pub(crate) fn aside(&self) -> Self {
        Self { aside: true, ..Self::new(false, self.quiet) }
    }

    /// True when machines read.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// True when progress is drawn.
    pub(crate) fn draws(&self) -> bool {
        self.draws
    }

    /// True when standard output is a terminal.
    pub(crate) fn is_seen(&self) -> bool {
        std::io::stdout().is_terminal()
    }

    /// One fact on one line of standard output.
    pub(crate) fn fact(&self, words: &str) -> Result<(), Failure> {
        self.raw(format!("{}\n", printable(words)).as_bytes())
    }

    /// Several lines of standard output, such as a diff.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        text.lines().try_for_each(|line| self.fact(line))
    }

    /// One JSON object on one line of standard output.
    pub(crate) fn object(&self, value: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(value).map_err(|error| Failure::local("cannot print JSON", error))?;
        line.push(b'\n');
        self.raw(&line)
    }

    /// Bytes of standard output as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        if self.aside {
            self.say(String::from_utf8_lossy(bytes).trim_end());
            return Ok(());
        }
        let written = self.bars.suspend(|| {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush())
        });
        written.map_err(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::local("cannot write to standard output", error),
        })
    }

    /// Talk: a line of standard error, unless the user wants quiet.
    pub(crate) fn say(&self, words: &str) {
        if !self.quiet {
            self.complain(words);
        }
    }

    /// The last words of a verb that failed.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.bars.clear().unwrap_or_default();
        if matches!(failure, Failure::Closed) {
            return;
        }
        self.complain(&format!("peer: {failure}"));
        if let Some(hint) = failure.hint() {
            self.complain(&format!("hint: {hint}"));
        }
    }

    /// A line of standard error that even the quiet hear. When nobody can hear it there is nobody to tell that either.
    pub(crate) fn complain(&self, words: &str) {
        let lines = words.lines().map(|line| format!("{}\n", printable(line))).collect::<String>();
        self.bars.suspend(|| std::io::stderr().lock().write_all(lines.as_bytes()).unwrap_or_default());
    }

    /// Asks on standard error, and leaves the cursor behind the question; whoever is asked must see it, however quiet.
    pub(crate) fn prompt(&self, question: &str) {
        let question = printable(question);
        self.bars.suspend(|| {
            let mut stderr = std::io::stderr().lock();
            stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).unwrap_or_default();
        });
    }

    /// Rings the terminal's bell.
    pub(crate) fn bell(&self) {
        self.bars.suspend(|| std::io::stderr().lock().write_all(b"\x07").unwrap_or_default());
    }

    /// Bytes of another program's standard output, as they are and where it would have written them.
    pub(crate) fn theirs(&self, bytes: &[u8]) {
        // Whoever closed it has heard enough; that program would have ended by it, and so ends what it is for.
        let write = |mut stdout: std::io::StdoutLock<'_>| stdout.write_all(bytes).and_then(|()| stdout.flush());
        self.bars.suspend(|| write(std::io::stdout().lock()).unwrap_or_default());
    }

    /// Shows how far `name` is: `done` of `all` bytes, from `source`.
    pub(crate) fn progress(&self, name: &str, done: u64, all: Option<u64>, source: Option<&str>) {
        let Some(bar) = self.bar_of(name, || bar(name)) else { return };
        if let Some(all) = all {
            bar.set_length(all);
        }
        bar.set_position(done);
        bar.set_message(printable(source.unwrap_or("…")));
    }

    /// Shows that `name`, called `title`, has been at it for `elapsed`, and what it does.
    pub(crate) fn activity(&self, name: &str, title: &str, doing: &str, elapsed: Duration) {
        if let Some(bar) = self.bar_of(name, || line(title).with_elapsed(elapsed)) {
            bar.set_message(printable(doing));
        }
    }

    fn bar_of(&self, name: &str, new: impl FnOnce() -> ProgressBar) -> Option<ProgressBar> {
        let mut shown = self.shown.borrow_mut();
        if !shown.contains_key(name) && shown.len() >= BARS_MAX {
            return None;
        }
        Some(shown.entry(name.to_owned()).or_insert_with(|| self.bars.add(new())).clone())
    }

    /// Takes the bar of `name` away.
    pub(crate) fn progress_ends(&self, name: &str) {
        if let Some(bar) = self.shown.borrow_mut().remove(name) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }
}

fn bar(name: &str) -> ProgressBar {
    let template = "{prefix:32!} {bar:24} {binary_bytes:>10}/{binary_total_bytes:10} {binary_bytes_per_sec:>12} {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::no_length().with_style(style).with_prefix(printable(name));
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn line(title: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:40!} {elapsed:>6} {msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
    let line = ProgressBar::no_length().with_style(style).with_prefix(printable(title));
    line.enable_steady_tick(Duration::from_secs(1));
    line
}

/// A number of bytes for human eyes; where it stands in data, `--json` has it exact.
pub(crate) fn human(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// File names and what peers say of themselves come from strangers: no escape sequence of theirs reaches the terminal, and
/// nothing that turns the rest of a line around (Unicode UAX 9, 2.1 to 2.5).
pub(crate) fn printable(words: &str) -> String {
    let turns =
        |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let safe = |c: char| if (c.is_control() && c != '\t') || turns(c) { char::REPLACEMENT_CHARACTER } else { c };
    words.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn words_of_strangers_neither_move_the_cursor_nor_turn_the_line() {
        assert_eq!(printable("a\tb\u{1b}[2Jc\u{202e}d\u{2067}é"), "a\tb\u{fffd}[2Jc\u{fffd}d\u{fffd}é");
    }
}
