//! What is written is read again.

use proptest::prelude::*;

use crate::harness::{File, archive_of, read, without_places};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(
        files in prop::collection::btree_map(
            "[a-z]{1,9}(/[a-z]{1,9}){0,3}",
            (prop::collection::vec(any::<u8>(), 0..3000), any::<bool>()),
            0..8,
        )
    ) {
        let files: Vec<File> = files
            .into_iter()
            .map(|(path, (content, is_own))| (path.into_bytes(), content, is_own))
            .collect();
        let (archive, name) = archive_of(&files);

        prop_assert_eq!(read(&archive, name).unwrap(), without_places(files));
    }
}
