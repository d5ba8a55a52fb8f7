//! Sorting the lines of a file by the path in each line, in bounded memory.
//!
//! This is an external merge sort: parts of the file are sorted in memory, written to temporary
//! files, and merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Seek as _, Write};
use std::path::Path;

/// At most this many bytes are sorted in memory at the same time.
const PART_LEN: usize = 48 << 20;

/// Copies the lines of `from` to `to`, sorted by path. A line is `<oid> <path>`.
///
/// Lines with equal paths keep their order. The sorted parts are unnamed files in `tmp`.
pub(super) fn sort_by_path(from: File, to: &mut impl Write, tmp: &Path) -> io::Result<()> {
    sort_in_parts(from, to, tmp, PART_LEN)
}

fn sort_in_parts(from: File, to: &mut impl Write, tmp: &Path, part_len: usize) -> io::Result<()> {
    let mut reader = BufReader::new(from);
    let mut parts = Vec::new();
    loop {
        let part = read_sorted(&mut reader, part_len)?;
        if part.is_empty() {
            break;
        }
        let mut file = BufWriter::new(tempfile::tempfile_in(tmp)?);
        for line in &part {
            file.write_all(line)?;
        }
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        parts.push(BufReader::new(file));
    }
    // Each entry has the number of its part, which breaks ties: earlier parts hold earlier lines.
    let mut heap = BinaryHeap::new();
    for (number, part) in parts.iter_mut().enumerate() {
        push_next(&mut heap, number, part)?;
    }
    while let Some(Reverse((_, number, line))) = heap.pop() {
        to.write_all(&line)?;
        if let Some(part) = parts.get_mut(number) {
            push_next(&mut heap, number, part)?;
        }
    }
    Ok(())
}

/// The next line of a part, in the order of the merge: its path, the number of its part, the line.
type MergeLine = Reverse<(Vec<u8>, usize, Vec<u8>)>;

fn push_next(
    heap: &mut BinaryHeap<MergeLine>,
    number: usize,
    part: &mut BufReader<File>,
) -> io::Result<()> {
    let mut line = Vec::new();
    if part.read_until(b'\n', &mut line)? > 0 {
        heap.push(Reverse((path_of(&line).to_owned(), number, line)));
    }
    Ok(())
}

fn read_sorted(reader: &mut BufReader<File>, part_len: usize) -> io::Result<Vec<Vec<u8>>> {
    let (mut lines, mut len) = (Vec::new(), 0);
    while len < part_len {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        // The allocation of a line costs about as much memory as a short line itself.
        len += line.len() + 48;
        lines.push(line);
    }
    // A stable sort, so that lines with equal paths keep their order.
    lines.sort_by(|left, right| path_of(left).cmp(path_of(right)));
    Ok(lines)
}

/// Returns the path of a line: the bytes from its first space on.
fn path_of(line: &[u8]) -> &[u8] {
    let space = line.iter().position(|&byte| byte == b' ');
    space.and_then(|at| line.get(at..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_parts_and_keeps_the_order_of_equal_paths() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"1 b\n2 a\n3 b\n4 \n5 a\n6 c d\n").unwrap();
        file.rewind().unwrap();
        let mut sorted = Vec::new();

        sort_in_parts(file, &mut sorted, &std::env::temp_dir(), 100).unwrap();

        assert_eq!(sorted, b"4 \n2 a\n5 a\n1 b\n3 b\n6 c d\n");
    }
}
