//! Errors of the CLI that need neither a daemon nor a mount, and its shell completions.

use cachewfs_tests::run;

fn failure(arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn errors_have_a_code_and_say_what_to_do() {
    let nowhere = ["--mount", "/nonexistent"];

    let (code, said) = failure(&["clone", "https://github.com"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("github.com/org/repo"), "{said}");

    let (code, said) = failure(&[&["status"][..], &nowhere].concat());
    assert_eq!(code, Some(3), "{said}");

    let (code, said) = failure(&["mount", "ftp://h", "/mnt"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("http://"), "{said}");

    let (code, said) = failure(&["mount", "/mnt"]);
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn credentials_are_not_printed() {
    for arguments in [
        ["pin", "https://user:hunter2@github.com"],
        ["clone", "https://hunter2@github.com/.."],
    ] {
        let (_, said) = failure(&arguments);
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn completions_are_a_script() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success());
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(script.contains("prefetch"), "{shell}");
    }
}
