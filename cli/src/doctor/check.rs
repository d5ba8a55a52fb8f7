//! The result of a check, and how it is printed.

use serde::Serialize;

/// The result of a check.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// The name of the check, such as `daemon route`. It is the same on each machine.
    name: &'static str,
    /// The mount, daemon or directory that was looked at, if there may be several.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    outcome: Outcome,
    /// One line: the reason, or the state if all is well.
    reason: String,
    /// A sentence on what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    /// A command that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
}

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// All is well.
    Ok,
    /// Something is slower than it could be, or doesn't work for other users.
    Warning,
    /// Something doesn't work.
    Wrong,
    /// The check was not made.
    Skipped,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
            Self::Skipped => "skipped",
        }
    }
}

impl Check {
    fn new(name: &'static str, outcome: Outcome, reason: impl Into<String>) -> Self {
        Self {
            name,
            subject: None,
            outcome,
            reason: reason.into(),
            remedy: None,
            command: None,
        }
    }

    pub(super) fn ok(name: &'static str, state: impl Into<String>) -> Self {
        Self::new(name, Outcome::Ok, state)
    }

    pub(super) fn warning(name: &'static str, reason: impl Into<String>) -> Self {
        Self::new(name, Outcome::Warning, reason)
    }

    pub(super) fn wrong(name: &'static str, reason: impl Into<String>) -> Self {
        Self::new(name, Outcome::Wrong, reason)
    }

    pub(super) fn skipped(name: &'static str, reason: impl Into<String>) -> Self {
        Self::new(name, Outcome::Skipped, reason)
    }

    /// Adds the mount, daemon or directory that was looked at.
    pub(super) fn of(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Adds a sentence on what to do.
    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds a command that mends it.
    pub(super) fn command(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Returns the check as lines of text: one, and what to do below it.
    pub(crate) fn lines(&self) -> Vec<String> {
        let subject = self.subject.as_ref();
        let subject = subject
            .map(|subject| format!(" {subject}"))
            .unwrap_or_default();
        let (word, name, reason) = (self.outcome.word(), self.name, &self.reason);
        let first = format!("{word:<8} {name}{subject}: {reason}");
        let remedy = self.remedy.iter().map(|remedy| format!("{:9}{remedy}", ""));
        let command = self
            .command
            .iter()
            .map(|command| format!("{:9}$ {command}", ""));
        std::iter::once(first)
            .chain(remedy)
            .chain(command)
            .collect()
    }
}

/// Returns `text` as one word of a shell command.
pub(super) fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+:@%=,".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_say_the_same() {
        let check = Check::wrong("mount", "it is dead")
            .of("/a b")
            .remedy("no data is lost")
            .command(format!("cachewfs umount {}", quoted("/a b")));

        assert_eq!(
            check.lines(),
            [
                "wrong    mount /a b: it is dead",
                "         no data is lost",
                "         $ cachewfs umount '/a b'"
            ]
        );
        assert_eq!(
            serde_json::to_value(&check).unwrap(),
            serde_json::json!({"name": "mount", "subject": "/a b", "outcome": "wrong",
                "reason": "it is dead", "remedy": "no data is lost",
                "command": "cachewfs umount '/a b'"})
        );
        let well = serde_json::to_value(Check::ok("git", "2.39.5")).unwrap();
        assert_eq!(
            well,
            serde_json::json!({"name": "git", "outcome": "ok", "reason": "2.39.5"})
        );
    }
}
