//! Programs that don't know cachewfs read an archive: zstd, GNU tar, and another reader of seek
//! tables.

use std::ffi::OsStr;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use cachewfs_format::{
    ChunkEncoding, Content, Digest, EntryKind, GitPath, ObjectId, Role, end_of_archive,
    member_header,
};

use crate::harness::{Builder, archive_of, paths_and_contents, sample};

/// Runs a program with `input` as its standard input. Returns its standard output.
fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeding = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap().unwrap();
    assert!(output.status.success(), "{program} {arguments:?} failed");
    output.stdout
}

/// Extracts a compressed archive with GNU tar.
fn extract(archive: &[u8]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let arguments = ["--zstd", "-x", "--no-same-owner", "-C", path, "-f", "-"];
    pipe("tar", &arguments, archive);
    directory
}

#[test]
fn stock_zstd_and_tar_read_an_archive() {
    let (archive, _) = archive_of(&sample());

    pipe("zstd", &["--test", "--quiet"], &archive);
    let stream = pipe("zstd", &["-dc"], &archive);
    let listing = pipe("tar", &["-tf", "-", "--quoting-style=literal"], &stream);
    let names: Vec<u8> = paths_and_contents(sample())
        .into_iter()
        .flat_map(|(path, _)| [path, b"\n".to_vec()].concat())
        .collect();
    assert_eq!(listing, names);
}

#[test]
fn gnu_tar_extracts_names_that_are_not_utf_8_and_long_ones() {
    let (archive, _) = archive_of(&sample());

    let directory = extract(&archive);

    for (path, content) in paths_and_contents(sample()) {
        let path = directory.path().join(OsStr::from_bytes(&path));
        assert_eq!(std::fs::read(&path).unwrap(), content, "{}", path.display());
        let metadata = path.metadata().unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o644, 7));
    }
}

#[test]
fn gnu_tar_extracts_directories_links_and_modes() {
    let long_target = [&b"\n9 path=x\n"[..], &[b'\xfe'; 300]].concat();
    let path = |path: &[u8]| GitPath::parse(path).unwrap();
    let deep = [&b"d\xfe/\n="[..], &[b'\xff'; 200]].concat();
    let script = EntryKind::File(Content::Inline { offset: 0 });
    let members = [
        (path(b"d\xfe"), EntryKind::Directory, 0o755),
        (
            path(b"d\xfe/link"),
            EntryKind::Symlink(b"not\xffutf8".as_slice().into()),
            0o777,
        ),
        (
            path(&deep),
            EntryKind::Symlink(long_target.as_slice().into()),
            0o777,
        ),
        (path(b"d\xfe/script"), script, 0o755),
    ];
    let header = |(path, kind, mode): &(GitPath, EntryKind, u32)| {
        member_header(path, kind, *mode, 0, 7).unwrap()
    };
    let stream: Vec<u8> = members
        .iter()
        .flat_map(header)
        .chain(end_of_archive())
        .collect();
    let mut builder = Builder::default();
    let chunk = (&stream[..], ChunkEncoding::Zstd(1));
    builder.segment(Role::WorkTree, [chunk], Vec::new(), None);
    let commit = ObjectId::parse(&"12".repeat(20)).unwrap();
    let (archive, _) = builder.finish("host/org/repo", commit, Digest::of(b"refs"));

    let directory = extract(&archive);

    let at = |path: &[u8]| directory.path().join(OsStr::from_bytes(path));
    let target = |path: &[u8]| std::fs::read_link(at(path)).unwrap().into_os_string();
    assert!(at(b"d\xfe").is_dir());
    assert_eq!(target(b"d\xfe/link").as_bytes(), b"not\xffutf8");
    assert_eq!(target(&deep).as_bytes(), long_target);
    let mode = at(b"d\xfe/script").metadata().unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn another_seekable_reader_seeks_in_an_archive() {
    let (archive, _) = archive_of(&sample());
    let stream = pipe("zstd", &["-dc"], &archive);
    let mut decoder = zeekstd::Decoder::new(std::io::Cursor::new(archive)).unwrap();

    for offset in [0, 1, 699, 700, 701, 4096, 9000, stream.len() - 3] {
        decoder
            .seek(std::io::SeekFrom::Start(offset as u64))
            .unwrap();
        let mut read = Vec::new();
        decoder.by_ref().take(2000).read_to_end(&mut read).unwrap();

        let end = stream.len().min(offset + 2000);
        assert!(read == stream[offset..end], "wrong bytes at {offset}");
    }
}
