//! A progress bar on standard error. It is drawn only if that is a terminal.

use std::time::Duration;

use cachewfs_fuse::control::protocol::Progress;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// The progress bar of one request.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// Shows a spinner until the first progress is known.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    pub(crate) fn show(&self, progress: &Progress) {
        if progress.total_bytes > 0 && self.0.length() != Some(progress.total_bytes) {
            let template = "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes} \
                 {binary_bytes_per_sec}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.0.set_style(style);
            }
            self.0.set_length(progress.total_bytes);
        }
        self.0.set_position(progress.done_bytes);
        self.0.set_message(output::cell(&progress.step));
    }

    /// Shows the name of a step whose length isn't known.
    pub(crate) fn step(&self, step: &str) {
        self.0.set_message(step.to_owned());
    }

    /// Removes the bar from the terminal.
    pub(crate) fn finish(self) {
        self.0.finish_and_clear();
    }
}
