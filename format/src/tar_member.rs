//! Writes the bytes of a tar stream around the content of its members: POSIX ustar, with pax
//! headers where ustar isn't enough.

use crate::{EntryKind, Error, GitPath, Result};

/// The unit of a tar stream, in bytes.
const BLOCK_LEN: usize = 512;
/// The largest size or time that fits in the 11 octal digits of a ustar field.
const MAX_USTAR_NUMBER: u64 = 0o777_7777_7777;

/// Returns the header of a tar member: one block. If the path, the link's target or the size
/// doesn't fit in ustar, a pax header precedes it. Owner and group are 0.
///
/// `kind` decides the type of the member. `size` is the length in bytes of the content that
/// follows, and is 0 for anything but a file.
pub fn member_header(
    path: &GitPath,
    kind: &EntryKind,
    mode: u32,
    size: u64,
    mtime: i64,
) -> Result<Vec<u8>> {
    let mut records = Vec::new();
    let (name, is_directory) = match kind {
        EntryKind::Directory => ([path.as_bytes(), b"/"].concat(), true),
        EntryKind::File(_) | EntryKind::Symlink(_) => (path.as_bytes().to_vec(), false),
    };
    let (prefix, base) = split_name(&name).unwrap_or_else(|| {
        // The ustar header gets the start of the path, for programs that ignore pax headers.
        pax_record(&mut records, b"path", &name);
        (&[], name.get(..100.min(name.len())).unwrap_or_default())
    });
    let (type_flag, link) = match kind {
        EntryKind::Directory => (b'5', &[][..]),
        EntryKind::File(_) => (b'0', &[][..]),
        EntryKind::Symlink(target) => (b'2', &**target),
    };
    if link.len() > 100 {
        pax_record(&mut records, b"linkpath", link);
    }
    if size > MAX_USTAR_NUMBER {
        pax_record(&mut records, b"size", size.to_string().as_bytes());
    }
    let member = Ustar {
        prefix,
        base,
        link,
        mode,
        size,
        mtime,
        type_flag,
    };
    let mut bytes = Vec::with_capacity(BLOCK_LEN);
    if !records.is_empty() {
        let size = u64::try_from(records.len()).unwrap_or(u64::MAX);
        let base = if is_directory {
            &b"pax-directory"[..]
        } else {
            &b"pax-file"[..]
        };
        let pax = Ustar {
            prefix: b"",
            base,
            link: b"",
            mode: 0o644,
            size,
            mtime,
            type_flag: b'x',
        };
        bytes.extend_from_slice(&pax.encode()?);
        bytes.extend_from_slice(&records);
        bytes.resize(bytes.len().saturating_add(padding_len(size)), 0);
    }
    bytes.extend_from_slice(&member.encode()?);
    Ok(bytes)
}

/// Returns the number of zero bytes that follow content of `size` bytes, up to the next block.
pub fn padding_len(size: u64) -> usize {
    let block_len = u64::try_from(BLOCK_LEN).unwrap_or(1);
    let used = size.checked_rem(block_len).unwrap_or(0);
    let padding = block_len
        .saturating_sub(used)
        .checked_rem(block_len)
        .unwrap_or(0);
    usize::try_from(padding).unwrap_or(0)
}

/// Returns the two zero blocks that end a tar stream.
pub fn end_of_archive() -> Vec<u8> {
    vec![0; BLOCK_LEN.saturating_mul(2)]
}

/// Splits a path at a slash into ustar's prefix (at most 155 bytes) and name (at most 100). Returns
/// `None` if no slash is at a suitable position.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((&[], name));
    }
    (0..name.len())
        .filter(|&at| name.get(at) == Some(&b'/'))
        .map(|at| {
            (
                name.get(..at).unwrap_or_default(),
                name.get(at.saturating_add(1)..),
            )
        })
        .find_map(|(prefix, base)| match base {
            Some(base) if prefix.len() <= 155 && (1..=100).contains(&base.len()) => {
                Some((prefix, base))
            }
            _ => None,
        })
        .filter(|(prefix, _)| !prefix.is_empty())
}

/// Appends a pax record, `<length> <key>=<value>\n`.
fn pax_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits. So it is increased until it is right.
    let fixed = key.len().saturating_add(value.len()).saturating_add(3);
    let mut len = fixed;
    while fixed.saturating_add(len.to_string().len()) != len {
        len = fixed.saturating_add(len.to_string().len());
    }
    records.extend_from_slice(format!("{len} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// The fields of a header block. The other fields are equal in all headers that this crate writes.
struct Ustar<'a> {
    prefix: &'a [u8],
    base: &'a [u8],
    link: &'a [u8],
    mode: u32,
    size: u64,
    mtime: i64,
    type_flag: u8,
}

impl Ustar<'_> {
    fn encode(&self) -> Result<[u8; BLOCK_LEN]> {
        let bad = |reason| Error::Malformed {
            section: "tar member",
            reason,
        };
        let mtime = u64::try_from(self.mtime).map_err(|_| bad("its time is before 1970"))?;
        if mtime > MAX_USTAR_NUMBER {
            return Err(bad("its time is after the year 2242"));
        }
        let mut block = [0; BLOCK_LEN];
        put(&mut block, 0, 100, self.base);
        put(&mut block, 100, 8, format!("{:07o}", self.mode).as_bytes());
        put(&mut block, 108, 8, b"0000000");
        put(&mut block, 116, 8, b"0000000");
        put(
            &mut block,
            124,
            12,
            format!("{:011o}", self.size.min(MAX_USTAR_NUMBER)).as_bytes(),
        );
        put(&mut block, 136, 12, format!("{mtime:011o}").as_bytes());
        // The checksum is computed over the block with spaces in the field of the checksum.
        put(&mut block, 148, 8, b"        ");
        put(&mut block, 156, 1, &[self.type_flag]);
        put(&mut block, 157, 100, self.link);
        put(&mut block, 257, 8, b"ustar\x0000");
        put(&mut block, 329, 8, b"0000000");
        put(&mut block, 337, 8, b"0000000");
        put(&mut block, 345, 155, self.prefix);
        let sum = block
            .iter()
            .fold(0_u32, |sum, &byte| sum.saturating_add(u32::from(byte)));
        put(&mut block, 148, 8, format!("{sum:06o}\0 ").as_bytes());
        Ok(block)
    }
}

/// Copies `bytes` into the field of `len` bytes at `at`. Bytes that don't fit are left out.
fn put(block: &mut [u8; BLOCK_LEN], at: usize, len: usize, bytes: &[u8]) {
    for (to, from) in block.iter_mut().skip(at).take(len).zip(bytes) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;
    use crate::{Content, Digest, SegmentId};

    fn file() -> EntryKind {
        EntryKind::File(Content::Segment(SegmentId(Digest::of(b""))))
    }

    /// Reads the one member with the `tar` crate. Returns its path, its link, its content and its
    /// time.
    fn read_back(header: &[u8], content: &[u8]) -> (Vec<u8>, Option<Vec<u8>>, Vec<u8>, u64) {
        let padding = vec![0; padding_len(content.len() as u64)];
        let stream = [header, content, &padding, &end_of_archive()].concat();
        let mut archive = tar::Archive::new(&stream[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let mut read = Vec::new();
        entry.read_to_end(&mut read).unwrap();
        let link = entry.link_name_bytes().map(std::borrow::Cow::into_owned);
        (
            entry.path_bytes().into_owned(),
            link,
            read,
            entry.header().mtime().unwrap(),
        )
    }

    proptest! {
        // The paths have no newlines: the `tar` crate, unlike GNU tar, ends a pax record at a
        // newline in its value.
        #[test]
        fn another_reader_finds_path_and_content(
            path in "[a-zA-Z0-9 '\"]{1,60}(/[a-z\u{e9}]{1,80}){0,5}",
            content in prop::collection::vec(any::<u8>(), 0..1500),
        ) {
            let path = GitPath::parse(path.as_bytes()).unwrap();
            let header = member_header(&path, &file(), 0o644, content.len() as u64, 7).unwrap();

            let (found, _, read, mtime) = read_back(&header, &content);

            prop_assert_eq!(found, path.as_bytes());
            prop_assert_eq!(read, content);
            prop_assert_eq!(mtime, 7);
        }
    }

    #[test]
    fn long_links_and_bytes_that_are_not_utf_8_survive() {
        let target = [b'\xfe'; 300];
        let path = GitPath::parse(&[&[b'\xff'; 120][..], b"/x"].concat()).unwrap();
        let header = member_header(&path, &EntryKind::Symlink(target.into()), 0o777, 0, 1).unwrap();

        let (found, link, ..) = read_back(&header, b"");

        assert_eq!(found, path.as_bytes());
        assert_eq!(link.unwrap(), target);
    }

    #[test]
    fn a_time_that_does_not_fit_in_a_header_is_refused() {
        let path = GitPath::parse(b"a").unwrap();

        for mtime in [-1, 1 << 33, i64::MAX] {
            assert!(member_header(&path, &file(), 0o644, 0, mtime).is_err());
        }
    }

    #[test]
    fn a_file_of_nine_gigabytes_gets_a_pax_size() {
        let path = GitPath::parse(b"big").unwrap();

        let header = member_header(&path, &file(), 0o644, 9 << 30, 1).unwrap();

        let text = String::from_utf8_lossy(&header).into_owned();
        assert!(text.contains("19 size=9663676416\n"), "{text:?}");
    }
}
