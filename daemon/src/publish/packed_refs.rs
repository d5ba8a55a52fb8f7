//! A long `packed-refs` in parts, most of which don't change from one publish to the next.
//!
//! Object ids don't compress: 20,000 tags take a megabyte in each archive. The file is therefore
//! cut at places that the names of refs define. After a push, only the part with the pushed branch
//! is stored again.

use cachewfs_format::Digest;

/// A file of at most this many bytes is stored among the small files.
pub(super) const MAX_SMALL_LEN: usize = 64 << 10;
/// One in this many refs begins a part, on average.
const PART_REFS: u64 = 512;
/// At most this many bytes are in a part, even if no name begins a new one.
const MAX_PART_LEN: usize = 256 << 10;

/// Returns whether the file is stored in parts.
pub(super) const fn is_cut(packed_refs: &[u8]) -> bool {
    packed_refs.len() > MAX_SMALL_LEN
}

/// Cuts the file (`git-pack-refs(1)`) into parts of whole lines.
pub(super) fn parts(packed_refs: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let (mut rest, mut len) = (packed_refs, 0);
    for line in packed_refs.split_inclusive(|&byte| byte == b'\n') {
        if len > 0 && (begins_part(line) || len + line.len() > MAX_PART_LEN) {
            let (part, after) = rest.split_at(len);
            parts.push(part);
            (rest, len) = (after, 0);
        }
        len += line.len();
    }
    parts.push(rest);
    parts
}

/// Returns whether this line begins a part, which the digest of the ref's name decides.
fn begins_part(line: &[u8]) -> bool {
    // A line with a peeled id has no name, and must stay in the part of its tag.
    let Some(space) = line.iter().position(|&byte| byte == b' ') else {
        return false;
    };
    let digest = Digest::of(line.get(space..).unwrap_or_default());
    let [first, second, ..] = *digest.as_bytes();
    u64::from(u16::from_le_bytes([first, second])) % PART_REFS == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(moved: u32) -> Vec<u8> {
        let mut file = b"# pack-refs with: peeled fully-peeled sorted \n".to_vec();
        for number in 0..20_000 {
            let id = number * 2 + u32::from(number == moved);
            file.extend(format!("{id:040x} refs/tags/v{number:05}\n^{id:040x}\n").bytes());
        }
        file
    }

    #[test]
    fn a_ref_that_moves_changes_one_part() {
        let (before, after) = (file(u32::MAX), file(10_000));

        let (before, after) = (parts(&before), parts(&after));

        assert!((20..80).contains(&before.len()), "{} parts", before.len());
        let kept = before.iter().filter(|part| after.contains(part)).count();
        assert_eq!(kept, before.len() - 1);
    }

    #[test]
    fn the_parts_together_are_the_file() {
        let file = file(1);

        assert!(parts(&file).concat() == file);
        assert_eq!(parts(b"one line"), [b"one line"]);
    }

    #[test]
    fn a_part_is_not_longer_than_the_limit_whatever_the_names_are() {
        let lines: Vec<u8> = b"0123 refs/heads/x\n".repeat(50_000);

        assert!(parts(&lines).iter().all(|part| part.len() <= MAX_PART_LEN));
    }
}
