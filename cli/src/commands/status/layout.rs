//! Fits text and tables into the width of a terminal.
//!
//! The width is `None` if the output is no terminal: then nothing is wrapped or left out, so that
//! each line that a program looks for is whole.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

use crate::output;

/// The indentation of the further lines of a sentence.
const INDENT: usize = 2;
/// Texts are at least so wide, also in a terminal that is narrower.
const LEAST_WIDTH: usize = 20;

/// A column of a table.
#[derive(Debug)]
pub(super) struct Column {
    title: &'static str,
    cells: Vec<String>,
    /// The columns with the lowest numbers are left out first if the table is too wide.
    importance: u8,
}

impl Column {
    pub(super) fn new(
        (title, importance): (&'static str, u8),
        cells: impl Iterator<Item = String>,
    ) -> Self {
        Self {
            title,
            // Without this, a line break in a cell would start a new line of the table, and another
            // party could forge a row.
            cells: cells.map(|cell| output::cell(&cell)).collect(),
            importance,
        }
    }
}

/// Returns the lines of a table. If it is too wide, leaves out columns, and then wraps its cells.
pub(super) fn table(mut columns: Vec<Column>, width: Option<usize>) -> Vec<String> {
    loop {
        let mut table = draw(&columns);
        let widths = table.column_max_content_widths();
        // A column has a space on both sides.
        let needed: usize = widths.iter().map(|width| usize::from(*width) + 2).sum();
        let Some(width) = width.filter(|width| needed > *width) else {
            return lines_of(&table);
        };
        let least = columns
            .iter()
            .enumerate()
            .min_by_key(|(_, column)| column.importance);
        match least.map(|(index, _)| index) {
            Some(index) if columns.len() > 2 => {
                columns.remove(index);
            }
            _ => {
                table.set_content_arrangement(ContentArrangement::Dynamic);
                table.set_width(width_of(width));
                return lines_of(&table);
            }
        }
    }
}

fn draw(columns: &[Column]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(columns.iter().map(|column| column.title));
    let rows = columns.first().map_or(0, |column| column.cells.len());
    for row in 0..rows {
        table.add_row(columns.iter().filter_map(|column| column.cells.get(row)));
    }
    table
}

/// Wraps a line between words. Further lines are indented.
pub(super) fn wrap(line: &str, width: Option<usize>) -> Vec<String> {
    let line = output::printable_line(line);
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.add_row([&line]);
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 0));
    }
    let needed = table.column_max_content_widths().first().copied();
    let Some(width) = width.filter(|width| usize::from(needed.unwrap_or_default()) > *width) else {
        return vec![line.into_owned()];
    };
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width_of(width.saturating_sub(INDENT)));
    let lines = lines_of(&table).into_iter().enumerate();
    lines
        .map(|(number, line)| match number {
            0 => line,
            _ => format!("{:INDENT$}{line}", ""),
        })
        .collect()
}

fn width_of(width: usize) -> u16 {
    u16::try_from(width.max(LEAST_WIDTH)).unwrap_or(u16::MAX)
}

fn lines_of(table: &Table) -> Vec<String> {
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_too_wide_loses_its_least_columns_first() {
        let columns = || {
            vec![
                Column::new(("NAME", 9), ["github.com/org/repo".to_owned()].into_iter()),
                Column::new(("PARTS", 1), ["x".repeat(100)].into_iter()),
                Column::new(("SIZE", 5), ["1 MiB\n".to_owned()].into_iter()),
            ]
        };

        let whole = table(columns(), None);
        let fitting = table(columns(), Some(40));
        let narrow = table(columns(), Some(20));

        assert!(whole.len() == 2 && whole[1].len() > 120, "{whole:?}");
        assert!(
            fitting[0].contains("SIZE") && !fitting[0].contains("PARTS"),
            "{fitting:?}"
        );
        assert_eq!(fitting.len(), 2, "{fitting:?}");
        assert!(narrow.iter().all(|line| line.len() <= 20), "{narrow:?}");
        assert!(narrow.len() > 2, "{narrow:?}");
    }

    #[test]
    fn a_sentence_is_wrapped_between_words() {
        let line = "host/repo: the daemon can't reach upstream, and tries again";

        assert_eq!(wrap(line, None), [line]);
        assert_eq!(wrap(line, Some(200)), [line]);
        assert_eq!(
            wrap(line, Some(30)),
            [
                "host/repo: the daemon can't",
                "  reach upstream, and tries",
                "  again"
            ]
        );
        // Characters that take two columns.
        let wide = wrap(&"日本".repeat(20), Some(30));
        assert!(wide.len() > 2, "{wide:?}");
    }
}
