//! Renders the page as HTML, complete for browsers without JavaScript.

use std::fmt::Write as _;

use super::view::{Row, View};

const PAGE: &str = include_str!("page.html");

/// Returns the page with the content of `view`. All text is escaped here, and nowhere else.
pub(super) fn render(view: &View) -> String {
    let mut page = String::with_capacity(PAGE.len() * 2);
    let mut rest = PAGE;
    // Inserted text is not searched for placeholders: a repository called {tone} keeps its name.
    while let Some((before, after)) = rest.split_once('{') {
        page.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or_default();
        page.push_str(&value(view, name));
        rest = after;
    }
    page.push_str(rest);
    page
}

/// Returns the text for the placeholder `{name}`.
fn value(view: &View, name: &str) -> String {
    let rows = |id: &str| {
        let table = view.tables.iter().find(|table| table.id == id);
        table.map_or(&[][..], |table| &table.rows)
    };
    match name {
        "tone" => view.tone.as_str().to_owned(),
        "headline" => escape(&view.headline),
        "summary" => escape(&view.summary),
        "tiles" => tiles(view),
        name => match name.strip_suffix("-hidden") {
            Some(id) if rows(id).is_empty() => " hidden".to_owned(),
            Some(_) => String::new(),
            None => rows(name).iter().map(row).collect(),
        },
    }
}

fn tiles(view: &View) -> String {
    let tiles = view.tiles.iter();
    let tile = |tile: &super::view::Tile| {
        let (name, text) = (escape(tile.name), escape(&tile.text));
        format!("<div><dt>{name}</dt><dd>{text}</dd></div>\n")
    };
    tiles.map(tile).collect()
}

fn row(row: &Row) -> String {
    let (key, tone) = (escape(&row.key), row.tone.as_str());
    let mut line = format!("<tr data-key=\"{key}\" data-tone=\"{tone}\">");
    for (column, cell) in row.cells.iter().enumerate() {
        let cell = escape(cell);
        // Writing to a string can't fail.
        match column {
            0 => write!(line, "<th scope=\"row\">{cell}</th>").ok(),
            _ => write!(line, "<td>{cell}</td>").ok(),
        };
    }
    line.push_str("</tr>\n");
    line
}

/// Escapes `text` for use in an element or an attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::status::view::{Table, Tile, Tone};

    #[test]
    fn text_cannot_become_markup() {
        let evil = "</td><script>alert(1)</script>{tone}\"' onload=x &amp;";
        let view = View {
            tone: Tone::Bad,
            headline: evil.to_owned(),
            summary: evil.to_owned(),
            tiles: vec![Tile {
                name: "Jobs",
                text: evil.to_owned(),
            }],
            tables: vec![Table {
                id: "attention",
                rows: vec![Row {
                    key: evil.to_owned(),
                    tone: Tone::Bad,
                    cells: vec![evil.to_owned(), evil.to_owned()],
                }],
            }],
        };

        let page = render(&view);

        assert!(!page.contains("<script>"), "{page}");
        assert!(!page.contains("\"' onload"), "{page}");
        let shown =
            "&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;{tone}&quot;&#39; onload=x &amp;amp;";
        assert_eq!(page.matches(shown).count(), 6);
        assert!(page.contains("<section>\n<h2 id=\"about-attention\">Needs attention"));
        assert!(page.contains("<section hidden>\n<h2 id=\"about-repositories\">Repositories"));
    }
}
