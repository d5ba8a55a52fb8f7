//! Writes the messages as a Markdown page.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::sources::{ErrorText, LEVELS, Outcome, Sources};

const HEAD: &str = "\
# Messages

Every error and log message of the programs, with its codes. This page is printed from the sources:

```
cargo run -q -p cachewfs-tests --example messages > docs/operations/messages.md
```

In a message, `{…}` stands for a value. An error is printed with its causes, each after a colon: search for one
part of the line.
";

/// Renders the page.
pub(crate) fn render(sources: &Sources) -> String {
    let mut page = HEAD.to_owned();
    write_table(
        &mut page,
        "## Answers of the daemon with a code",
        ["code", "HTTP", "message", "next step"],
        answers(sources),
    );
    write_table(
        &mut page,
        "## Errors of the command line",
        ["exit code", "message", "next step", "file"],
        of_command_line(sources),
    );
    write_table(
        &mut page,
        "## Other errors",
        ["message", "errno", "error", "file"],
        others(sources),
    );
    for (level, name) in LEVELS.iter().enumerate() {
        let of_level = sources.logs.iter().filter(|((of, _), _)| *of == level);
        let rows = of_level
            .flat_map(|((_, file), texts)| texts.iter().map(|text| [text.clone(), quoted(file)]));
        let title = format!("## Log, level {}", name.to_uppercase());
        write_table(&mut page, &title, ["message", "file"], rows.collect());
    }
    page
}

/// Where an error is reported first: each is in one table.
#[derive(PartialEq, Eq)]
enum Border {
    Http,
    CommandLine,
    Other,
}

fn border(error: &ErrorText, outcome: Option<&Outcome>) -> Border {
    let has_exit_code = outcome.is_some_and(|outcome| outcome.exit_code.is_some());
    if outcome.is_some_and(|outcome| outcome.status.is_some()) {
        Border::Http
    } else if has_exit_code || error.file.starts_with("cli/") {
        Border::CommandLine
    } else {
        Border::Other
    }
}

/// Returns the errors of one border with their outcomes.
fn of_border(sources: &Sources, of: Border) -> impl Iterator<Item = (&ErrorText, &Outcome)> {
    const NONE: &Outcome = &Outcome::NONE;
    let with_outcome = sources
        .errors
        .iter()
        .map(|error| (error, sources.outcomes.get(&error.variant)));
    with_outcome
        .filter(move |(error, outcome)| border(error, *outcome) == of)
        .map(|(error, outcome)| (error, outcome.unwrap_or(NONE)))
}

/// Lists codes in alphabetical order, with a row for each message. A code of many messages, such as
/// `disk_full`, has a row without a message.
fn answers(sources: &Sources) -> Vec<[String; 4]> {
    let mut rows: BTreeSet<[String; 4]> = of_border(sources, Border::Http)
        .filter_map(|(error, outcome)| {
            let (code, status) = (outcome.code.as_deref()?, outcome.status?);
            let advice = outcome.advice.clone().unwrap_or_default();
            Some([quoted(code), status.to_string(), error.text.clone(), advice])
        })
        .collect();
    let named: BTreeSet<_> = rows.iter().map(|[code, ..]| code.clone()).collect();
    let unnamed = sources
        .codes
        .iter()
        .map(|(code, status)| (quoted(code), status.to_string()))
        .filter(|(code, _)| !named.contains(code));
    rows.extend(
        unnamed.map(|(code, status)| [code, status, "(its cause says)".to_owned(), String::new()]),
    );
    rows.into_iter().collect()
}

fn of_command_line(sources: &Sources) -> Vec<[String; 4]> {
    of_border(sources, Border::CommandLine)
        .map(|(error, outcome)| {
            let code = outcome.exit_code.as_deref().unwrap_or("1").to_owned();
            let advice = outcome.advice.clone().unwrap_or_default();
            [code, error.text.clone(), advice, quoted(&error.file)]
        })
        .collect()
}

fn others(sources: &Sources) -> Vec<[String; 4]> {
    of_border(sources, Border::Other)
        .map(|(error, outcome)| {
            let (of, variant) = &error.variant;
            let name = format!("{of}::{variant}");
            let name = quoted(name.trim_end_matches(':'));
            let errno = outcome.errno.clone().unwrap_or_default();
            [error.text.clone(), errno, name, quoted(&error.file)]
        })
        .collect()
}

fn quoted(text: &str) -> String {
    format!("`{text}`")
}

fn write_table<const N: usize>(
    page: &mut String,
    title: &str,
    header: [&str; N],
    rows: Vec<[String; N]>,
) {
    let lines = [header.map(str::to_owned), header.map(|_| "---".to_owned())];
    writeln!(page, "\n{title}\n").expect("writing to a string works");
    for row in lines.into_iter().chain(rows) {
        let cells = row.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        writeln!(page, "| {} |", cells.join(" | ")).expect("writing to a string works");
    }
}
