//! Sorting the lines of a file by the path in them, in bounded memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Seek as _, Write};
use std::path::Path;

/// So much of a file is sorted at once, in bytes; more is sorted in parts that are merged.
const PART_LEN: usize = 48 << 20;

/// Copies the lines of `from` to `to`, those with the same path together and in their old order.
/// A line is `<oid> <path>`.
///
/// The parts are unnamed files in `tmp`.
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
    // The part's number breaks ties: earlier parts hold earlier lines.
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
        // The allocation itself costs about as much as a short line.
        len += line.len() + 48;
        lines.push(line);
    }
    lines.sort_by(|left, right| path_of(left).cmp(path_of(right)));
    Ok(lines)
}

/// What follows the first space.
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
