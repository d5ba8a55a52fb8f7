//! Makes text of other parties safe to show on a terminal.
//!
//! A terminal obeys control characters. Bidirectional controls make it show characters in another
//! order than the text has. So every program shows a replacement for each of these characters.

use std::borrow::Cow;

/// The character after text that was cut.
const CUT: char = '…';

/// The escape sequences that a logger uses for styles: reset, bold, dim, italic and six colours. No
/// other sequence is kept, because some hide text or move the cursor.
const LOG_STYLES: [&str; 10] = ["0", "1", "2", "3", "31", "32", "33", "34", "35", "36"];

/// The treatment of a logger's escape sequences for colours and styles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// They are kept: the output is a terminal, and the logger colours its text.
    Kept,
    /// They are replaced: the logger uses no colours, so each sequence is from another party.
    Removed,
}

/// Returns whether a terminal shows `character` instead of obeying it.
///
/// Returns `false` for control characters (C0, DEL, C1), bidirectional controls, and the separators
/// of lines and paragraphs.
pub fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{061c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// Makes one printable line of `text`, and cuts it after `max_len` characters.
///
/// A line break or a tab becomes a space. Every other character that isn't printable becomes
/// U+FFFD.
pub fn printable(text: &str, max_len: usize) -> Cow<'_, str> {
    let is_short = text.len() <= max_len || text.chars().nth(max_len).is_none();
    if is_short && text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let shown = text.chars().take(max_len).map(shown);
    let cut = if is_short { None } else { Some(CUT) };
    Cow::Owned(shown.chain(cut).collect())
}

/// Makes one printable line of the text that a logger writes for one event.
///
/// `event` is the whole text of the event, with its line end. The line is cut after `max_len`
/// characters; styles and the line end don't count.
pub fn printable_event(event: &str, colours: Colours, max_len: usize) -> String {
    let mut rest = event.strip_suffix('\n').unwrap_or(event);
    let mut line = String::with_capacity(event.len());
    let mut len = 0_usize;
    while let Some(character) = rest.chars().next() {
        if colours == Colours::Kept
            && let Some((style, after)) = log_style(rest)
        {
            line.push_str(style);
            rest = after;
            continue;
        }
        if len >= max_len {
            line.push(CUT);
            break;
        }
        line.push(shown(character));
        len = len.saturating_add(1);
        rest = rest.get(character.len_utf8()..).unwrap_or_default();
    }
    line.push('\n');
    line
}

/// Splits a logger's escape sequence off the start of `text`, if one is there.
fn log_style(text: &str) -> Option<(&str, &str)> {
    let (code, _) = text.strip_prefix("\u{1b}[")?.split_once('m')?;
    if !LOG_STYLES.contains(&code) {
        return None;
    }
    // The sequence has three characters around the code: ESC, `[` and `m`.
    text.split_at_checked(code.len().saturating_add(3))
}

fn shown(character: char) -> char {
    match character {
        '\n' | '\r' | '\t' => ' ',
        _ if is_printable(character) => character,
        _ => char::REPLACEMENT_CHARACTER,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_are_replaced() {
        for (text, shown) in [
            ("grüße 日本 🦀", "grüße 日本 🦀"),
            (
                "\u{1b}[2J\u{1b}]0;x\u{7}",
                "\u{fffd}[2J\u{fffd}]0;x\u{fffd}",
            ),
            ("c1 \u{9b}31m", "c1 \u{fffd}31m"),
            ("del\u{7f} nul\0", "del\u{fffd} nul\u{fffd}"),
            ("a\u{202e}cba\u{202c}", "a\u{fffd}cba\u{fffd}"),
            (
                "\u{2066}x\u{2069}\u{200f}\u{61c}",
                "\u{fffd}x\u{fffd}\u{fffd}\u{fffd}",
            ),
            (
                "one\r\ntwo\tthree\u{2028}four",
                "one  two three\u{fffd}four",
            ),
        ] {
            assert_eq!(printable(text, 100), shown, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_control_characters_are_left(text: String, max_len in 0_usize..200) {
            let line = printable(&text, max_len);
            prop_assert!(line.chars().all(is_printable));
            prop_assert!(line.chars().count() <= max_len + 1);

            let event = printable_event(&text, Colours::Removed, max_len);
            prop_assert!(event.strip_suffix('\n').unwrap().chars().all(is_printable));
        }

        #[test]
        fn only_styles_of_a_logger_are_left(
            text in r"(\x1b\[[0-9;]{0,4}[mAJ]|[a-z\x00-\x1f\x{202e}]){0,30}",
        ) {
            let mut event = printable_event(&text, Colours::Kept, 1000);
            for style in LOG_STYLES {
                event = event.replace(&format!("\u{1b}[{style}m"), "");
            }
            prop_assert!(event.strip_suffix('\n').unwrap().chars().all(is_printable));
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(printable("äöü", 3), "äöü");
        assert_eq!(printable("äöüß", 3), "äöü…");
        assert_eq!(printable_event("äöüß\n", Colours::Removed, 3), "äöü…\n");
    }

    #[test]
    fn an_event_keeps_its_own_colours_and_its_line_end() {
        let event =
            "\u{1b}[2m10:00\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m a\nb \u{1b}[8mhidden \u{1b}[1A\n";

        let kept = printable_event(event, Colours::Kept, 1000);
        let removed = printable_event(event, Colours::Removed, 1000);

        let start = "\u{1b}[2m10:00\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m a b ";
        assert_eq!(kept, format!("{start}\u{fffd}[8mhidden \u{fffd}[1A\n"));
        assert!(!removed.contains('\u{1b}'), "{removed:?}");
    }
}
