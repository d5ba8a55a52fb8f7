//! An archive with any files is read as it was written.

use proptest::prelude::*;

use crate::harness::{SampleFile, archive_of, paths_and_contents, read};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_archive_round_trips(
        files in prop::collection::btree_map(
            "[a-z]{1,9}(/[a-z]{1,9}){0,3}",
            (prop::collection::vec(any::<u8>(), 0..3000), any::<bool>()),
            0..8,
        )
    ) {
        let files: Vec<SampleFile> = files
            .into_iter()
            .map(|(path, (content, is_own))| (path.into_bytes(), content, is_own))
            .collect();
        let (archive, name) = archive_of(&files);

        prop_assert_eq!(read(&archive, name).unwrap(), paths_and_contents(files));
    }
}
