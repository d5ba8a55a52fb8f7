//! Progress on standard error: a bar on a terminal, and two lines elsewhere.
//!
//! Elsewhere, such as in the log of a CI job, work that takes no longer than [`PATIENCE`] prints
//! nothing. Longer work prints a line then, and another at its end.

use std::io::IsTerminal as _;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cachewfs_fuse::control::protocol::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;
use crate::speech::Speech;

/// How long work may take before a line says what it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// The progress of one request.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    lines: Option<Lines>,
}

/// The lines that are printed instead of a bar.
#[derive(Debug)]
struct Lines {
    step: Arc<Mutex<String>>,
    /// Dropping it ends the thread.
    end: mpsc::Sender<()>,
    /// Prints the first line. Returns whether it did.
    thread: JoinHandle<bool>,
    started: Instant,
}

impl Lines {
    fn start(patience: Duration) -> Self {
        let step = Arc::<Mutex<String>>::default();
        let (end, ended) = mpsc::channel();
        let shown = Arc::clone(&step);
        let thread = std::thread::spawn(move || {
            let is_long = ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout);
            let step = text(&shown);
            let is_said = is_long && !step.is_empty();
            if is_said {
                output::error(&format!("cachewfs: {step}"));
            }
            is_said
        });
        Self {
            step,
            end,
            thread,
            started: Instant::now(),
        }
    }

    fn finish(self) {
        drop(self.end);
        if self.thread.join().unwrap_or(false) {
            let seconds = self.started.elapsed().as_secs_f64();
            output::error(&format!("cachewfs: this took {seconds:.1} s"));
        }
    }
}

/// Locks the name of a step. A thread that panicked has left it whole.
fn text(step: &Mutex<String>) -> MutexGuard<'_, String> {
    step.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bar {
    /// Shows a spinner until the first progress is known.
    pub(crate) fn new() -> Self {
        Self::after(PATIENCE)
    }

    /// Shows a spinner. Where there is no terminal, work of over `patience` prints lines instead.
    pub(crate) fn after(patience: Duration) -> Self {
        let is_shown = Speech::chosen().shows_progress();
        let target = if is_shown {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(ProgressStyle::default_spinner());
        bar.enable_steady_tick(Duration::from_millis(100));
        let lines = (is_shown && !std::io::stderr().is_terminal()).then(|| Lines::start(patience));
        Self { bar, lines }
    }

    pub(crate) fn show(&self, progress: &Progress) {
        if progress.total_bytes > 0 && self.bar.length() != Some(progress.total_bytes) {
            let template = "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes} \
                 {binary_bytes_per_sec}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style);
            }
            self.bar.set_length(progress.total_bytes);
        }
        self.bar.set_position(progress.done_bytes);
        self.step(&progress.step);
    }

    /// Shows the name of a step whose length isn't known.
    pub(crate) fn step(&self, step: &str) {
        self.bar.set_message(output::cell(step));
        if let Some(lines) = &self.lines {
            step.clone_into(&mut text(&lines.step));
        }
    }

    /// Prints a line above the bar.
    pub(crate) fn print(&self, line: &str) -> anyhow::Result<()> {
        self.bar.suspend(|| output::line(line))
    }

    /// Removes the bar from the terminal, or prints the last line.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
        if let Some(lines) = self.lines {
            lines.finish();
        }
    }
}
