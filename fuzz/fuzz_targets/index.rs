//! Fuzzes parts of git indexes: an accepted part has exactly the bytes that git would write.
#![no_main]

use cachewfs_format::{GitIndexWriter, GitPath, index_part_entries};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|part: &[u8]| {
    for id_len in [20, 32] {
        check(part, id_len);
    }
});

fn check(part: &[u8], id_len: usize) {
    let max_bytes = 4096 + 16 * part.len();
    let Ok(entries) =
        cachewfs_fuzz::with_memory_limit(max_bytes, || index_part_entries(part, id_len))
    else {
        return;
    };
    let mut encoded = Vec::new();
    for entry in &entries {
        let path = GitPath::parse(entry.path).expect("an accepted entry has a valid path");
        assert!(path.check_out_as(entry.mode).is_ok());
        // The fields of stat(2) may have any value: git compares them with those of the file.
        encoded.extend_from_slice(&part[encoded.len()..][..40]);
        encoded.extend_from_slice(entry.id);
        let len = u16::try_from(path.as_bytes().len()).expect("a path has at most 4096 bytes");
        encoded.extend_from_slice(&len.min(0xFFF).to_be_bytes());
        encoded.extend_from_slice(entry.path);
        let unpadded = 42 + id_len + entry.path.len();
        encoded.resize(encoded.len() + 8 - unpadded % 8, 0);
    }
    assert_eq!(encoded, part);

    let mut writer = GitIndexWriter::new(id_len);
    writer
        .push_part(part)
        .expect("an accepted part can be written");
    assert!(writer.finish(true).entries().eq(entries));
}
