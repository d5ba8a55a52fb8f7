//! Says what a name below a host can be, as far as that is certain without a request.
//!
//! Programs probe every directory above their current one for files of their own: git for `HEAD`,
//! direnv for `.envrc`, node for `package.json`. Such a name is a repository nowhere, and a request
//! for it would make the daemon ask upstream.

use cachewfs_format::RepoName;

/// Hosts where the name of each repository has two parts, the owner and the repository.
const TWO_PART_HOSTS: [&str; 3] = ["bitbucket.org", "codeberg.org", "github.com"];
/// Hosts where the name of each repository has at least two parts.
const GROUP_HOSTS: [&str; 1] = ["gitlab.com"];
/// Names that programs look for in each directory, sorted. A repository with such a name can still
/// be opened by `cachewfs refresh`, which asks the daemon in any case.
const PROBED: [&str; 70] = [
    ".DS_Store",
    ".Trash",
    ".Trash-0",
    ".Trash-1000",
    ".bazelignore",
    ".bazelrc",
    ".bazelversion",
    ".bzr",
    ".cargo",
    ".clang-format",
    ".clang-tidy",
    ".clangd",
    ".directory",
    ".editorconfig",
    ".env",
    ".envrc",
    ".fslckout",
    ".gitattributes",
    ".gitignore",
    ".gitmodules",
    ".hg",
    ".hidden",
    ".ignore",
    ".jj",
    ".mailmap",
    ".mise.toml",
    ".node-version",
    ".npmrc",
    ".nvmrc",
    ".perl-version",
    ".pijul",
    ".pre-commit-config.yaml",
    ".prettierrc",
    ".python-version",
    ".rgignore",
    ".ruby-version",
    ".sl",
    ".svn",
    ".terraform-version",
    ".tool-versions",
    ".venv",
    ".xdg-volume-info",
    "BUILD.bazel",
    "CMakeLists.txt",
    "CVS",
    "Cargo.toml",
    "GNUmakefile",
    "Gemfile",
    "HEAD",
    "MODULE.bazel",
    "Makefile",
    "WORKSPACE.bazel",
    "_FOSSIL_",
    "_darcs",
    "autorun.inf",
    "build.gradle",
    "commondir",
    "compile_commands.json",
    "deno.json",
    "go.mod",
    "go.work",
    "mise.toml",
    "node_modules",
    "package.json",
    "pnpm-workspace.yaml",
    "pom.xml",
    "pyproject.toml",
    "rust-toolchain.toml",
    "setup.cfg",
    "tsconfig.json",
];

/// The kinds of things that a name below a host can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameKind {
    /// A name that is no repository and no beginning of a repository's name.
    Nothing,
    /// The beginning of names, and no repository.
    Directory,
    /// A repository, or the beginning of names. Only the daemon knows.
    Unknown,
}

/// Returns whether programs look for `name` in each directory, so that it is no repository.
pub(crate) fn is_probed(name: &str) -> bool {
    PROBED.binary_search(&name).is_ok()
}

/// Returns whether `name` is the first one below its host.
pub(super) fn is_first(name: &RepoName) -> bool {
    !name.path().contains('/')
}

/// Returns whether `name`, which is no repository, can be the beginning of names.
///
/// The daemon lists no organisations, so any first name below a host may be one. No forge allows a
/// dot at its beginning, and programs look for many files with such names.
pub(super) fn may_have_names(name: &RepoName) -> bool {
    is_first(name) && !name.path().starts_with('.')
}

/// Returns what `name` can be.
pub(super) fn kind_of(name: &RepoName) -> NameKind {
    let last = name.path().rsplit('/').next().unwrap_or_default();
    let has_two_parts = TWO_PART_HOSTS.contains(&name.host());
    let has_owners = has_two_parts || GROUP_HOSTS.contains(&name.host());
    if is_probed(last) || has_two_parts && name.path().split('/').count() > 2 {
        NameKind::Nothing
    } else if !has_owners || !is_first(name) {
        NameKind::Unknown
    } else if may_have_names(name) {
        NameKind::Directory
    } else {
        NameKind::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_name_can_be_follows_from_its_host_and_its_last_part() {
        assert!(PROBED.is_sorted());
        for (name, expected) in [
            ("github.com/org", NameKind::Directory),
            ("github.com/org/repo", NameKind::Unknown),
            ("github.com/org/.github", NameKind::Unknown),
            ("github.com/org/repo/deep", NameKind::Nothing),
            ("github.com/.anything", NameKind::Nothing),
            ("gitlab.com/group", NameKind::Directory),
            ("gitlab.com/group/sub/repo", NameKind::Unknown),
            ("git.example.org/x", NameKind::Unknown),
            ("git.example.org/.x", NameKind::Unknown),
            ("git.example.org/.envrc", NameKind::Nothing),
            ("git.example.org/a/b/package.json", NameKind::Nothing),
        ] {
            let name = RepoName::parse(name).unwrap();
            assert_eq!(kind_of(&name), expected, "{name}");
        }
    }
}
