//! Tests of damaged mirrors.

use std::fs;

use super::{World, is_failed_fetch, put};

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_mirror_is_cloned_anew_but_not_twice_in_an_hour() {
    let world = World::new(|_| {});
    let mirror = world.add_mirror("a.org/x");
    let mark = mirror.join("damaged");
    let damage = || {
        put(&mark, "");
        fs::remove_file(mirror.join("config")).unwrap();
    };
    world.git.answers(
        "fetch",
        "if [ -e \"$repository/damaged\" ]; then exit 128; fi",
    );
    damage();

    let repository = world.open("a.org/x");
    let mended = repository.update().await;
    let is_new = !mark.exists() && !world.has_leftovers();
    damage();
    let again = repository.refresh().await;

    mended.unwrap();
    assert!(is_new);
    assert!(is_failed_fetch(&again.unwrap_err()));
    assert!(mark.exists());
    assert_eq!(world.git.calls("clone").len(), 1);
}
