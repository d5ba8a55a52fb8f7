//! How this process speaks on standard error: as text or JSON, and with or without progress.
//!
//! The arguments decide it once, at the start.

use std::sync::OnceLock;

/// How a process speaks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Speech {
    /// Whether each line is a JSON object. The arguments have `--json`.
    pub(crate) is_json: bool,
    /// Whether progress is left out. The arguments have `--quiet`.
    pub(crate) is_quiet: bool,
}

static SPEECH: OnceLock<Speech> = OnceLock::new();

impl Speech {
    /// Chooses how this process speaks from now on. Only the first choice counts.
    pub(crate) fn choose(self) {
        SPEECH.set(self).ok();
    }

    /// Returns how this process speaks.
    pub(crate) fn chosen() -> Self {
        SPEECH.get().copied().unwrap_or_default()
    }

    /// Returns whether progress is shown.
    pub(crate) fn shows_progress(self) -> bool {
        !self.is_json && !self.is_quiet
    }
}
