//! Makes log lines safe to print.
//!
//! Log lines contain text from upstreams and clients. Such text must not control a terminal, nor
//! look like another log line.

use std::io::{self, Write};

use cachewfs_format::{Colours, printable_event};
use tracing_subscriber::fmt::MakeWriter;

/// At most this many characters of one log event are written.
const MAX_EVENT_LEN: usize = 100_000;

/// A writer of log events that makes one printable line of each event.
///
/// It is needed because tracing-subscriber 0.3 escapes the message of an event, but not its fields.
#[derive(Debug)]
pub struct LogOutput<W> {
    output: W,
    colours: Colours,
}

impl<W> LogOutput<W> {
    /// Makes a writer to `output`. `colours` says whether the logger's own colours stay or are
    /// removed.
    pub fn new(output: W, colours: Colours) -> Self {
        Self { output, colours }
    }
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for LogOutput<W> {
    type Writer = LogOutput<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        LogOutput::new(self.output.make_writer(), self.colours)
    }
}

impl<W: Write> Write for LogOutput<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        // tracing-subscriber writes the whole text of an event with one call. A line break before
        // the last byte is therefore part of an event, and is escaped.
        let text = String::from_utf8_lossy(event);
        let line = printable_event(&text, self.colours, MAX_EVENT_LEN);
        self.output.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn fields_of_the_log_have_nothing_that_a_terminal_obeys() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let output = Mutex::new(log.reopen().unwrap());
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(true)
            .with_writer(LogOutput::new(output, Colours::Kept))
            .finish();

        tracing::subscriber::with_default(subscriber, || {
            let error = "refused\nERROR all is lost \u{9b}2J\u{1b}]0;x\u{202e}";
            tracing::warn!(%error, "Can't do it: {error}");
        });

        let text = std::fs::read_to_string(log.path()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(text.contains("\u{1b}[33m"), "{text:?}");
        assert!(!text.contains(['\u{9b}', '\u{202e}']), "{text:?}");
        assert!(!text.contains("\u{1b}]"), "{text:?}");
    }
}
