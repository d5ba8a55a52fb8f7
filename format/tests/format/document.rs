//! Compares `docs/format.md` with the code: the limits, and the fields of the JSON objects.

use std::collections::{BTreeMap, BTreeSet};

use cachewfs_format::limits;
use serde_json::Value;

use crate::harness::root;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Returns the section of the document with this heading.
fn section(heading: &str) -> String {
    let document = read("docs/format.md");
    let (_, rest) = document.split_once(&format!("\n## {heading}\n")).unwrap();
    rest.split("\n## ").next().unwrap().to_owned()
}

/// Parses a value of the table, such as `64 MiB` or `16`.
fn number(text: &str) -> u64 {
    let (number, unit) = text.split_once(' ').unwrap_or((text, "bytes"));
    let unit = match unit {
        "bytes" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => panic!("{text:?} has an unknown unit"),
    };
    number.parse::<u64>().unwrap() * unit
}

/// Returns the names and the values of the constants in `limits`.
fn constants() -> BTreeMap<String, u64> {
    macro_rules! constants {
        ($($name:ident)*) => { [$((stringify!($name), u64::try_from(limits::$name).unwrap()),)*] };
    }
    let constants = constants![
        MAX_REPO_NAME_LEN MAX_HOST_LEN MAX_REPO_NAME_SEGMENT_LEN MAX_REPO_NAME_SEGMENTS
        MAX_PATH_LEN MAX_COMPONENT_LEN MAX_CHUNK_LEN MAX_STORED_CHUNK_LEN MAX_TABLE_LEN
        MAX_ENTRIES MAX_TOC_LEN MAX_SEEK_TABLE_LEN MAX_FRAMES MAX_MANIFEST_LEN MAX_POINTER_LEN
        MAX_SEGMENTS MAX_REFS_LEN MAX_INDEX_LEN
        MAX_REPLACED MAX_DELETIONS_LEN MAX_DELETION_NOTICES MAX_USED_IDS
    ];
    constants
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

#[test]
fn the_table_of_limits_has_the_constants() {
    let documented: BTreeMap<String, u64> = section("9 Limits")
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(2);
            let (value, name) = (cells.next()?, cells.next()?);
            let name = name.strip_prefix('`')?.strip_suffix('`')?;
            Some((name.to_owned(), number(value)))
        })
        .collect();

    assert_eq!(documented, constants());
}

#[test]
fn the_test_compares_every_constant() {
    let source = read("format/src/limits.rs");
    let in_source: BTreeSet<&str> = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split(':').next())
        .collect();

    let compared = constants();
    assert_eq!(in_source, compared.keys().map(String::as_str).collect());
}

/// Adds the names of all fields of `value` to `found`, at any depth.
fn fields(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                found.insert(name.clone());
                fields(value, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| fields(value, found)),
        _ => {}
    }
}

#[test]
fn every_json_field_is_described() {
    let section = section("7 Manifest, pointer and deletions");
    let mut written = BTreeSet::new();
    for name in [
        "manifest-noticed",
        "lfs-manifest",
        "pointer-noticed",
        "deletions",
    ] {
        let json = read(&format!("fuzz/seeds/manifest/{name}.json"));
        fields(&serde_json::from_str(&json).unwrap(), &mut written);
    }

    for name in &written {
        assert!(
            section.contains(&format!("`{name}`")),
            "docs/format.md doesn't describe the field {name}"
        );
    }
    // The document describes no field that is never written.
    let in_tables = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('|').next());
    for name in in_tables.flat_map(|cell| cell.split(['`', ',', ' '])) {
        assert!(
            name.is_empty() || written.contains(name),
            "docs/format.md describes the field {name}, which isn't written"
        );
    }
}

/// Returns the words in backquotes that are the second cell of a row, below this heading.
fn documented_codes() -> BTreeSet<String> {
    let document = read("docs/http-api.md");
    let (_, section) = document.split_once("\n## Error codes\n").unwrap();
    let cells = section.lines().filter_map(|line| line.split('|').nth(2));
    let words = cells.filter_map(|cell| cell.trim().strip_prefix('`')?.strip_suffix('`'));
    words
        .filter(|&word| word != "code")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_tables_of_error_codes_have_all_codes() {
    let source = read("format/src/api/mod.rs");
    let (_, module) = source.split_once("\npub mod code {\n").unwrap();
    let module = module.split("\n}\n").next().unwrap();
    let values = module.lines().filter_map(|line| {
        let (_, value) = line.trim().strip_prefix("pub const ")?.split_once('"')?;
        value.strip_suffix("\";")
    });
    let codes: BTreeSet<String> = values.map(str::to_owned).collect();

    assert_eq!(documented_codes(), codes);
}
