//! The tokens file: names, hashes and groups of the known tokens.

use std::path::Path;
use std::sync::Arc;

use super::token::{TokenHash, is_name};

/// The longest tokens file, in bytes. Each request with a token is compared with every line.
const MAX_FILE_LEN: u64 = 1 << 20;

/// The identity of a caller, as policies see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Subject {
    /// Empty for a caller without a token.
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

/// The reason why a tokens file can't be used. It never contains a line of the file, which may hold
/// a token by mistake.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The file can't be read.
    #[error("can't read the file")]
    Read(#[from] std::io::Error),
    /// The file is too long.
    #[error("the file is longer than {MAX_FILE_LEN} bytes")]
    TooLong,
    /// A line has another format.
    #[error("line {line} is not name:sha256-of-the-token[:group,…]")]
    Line {
        /// The number of the line, counted from 1.
        line: usize,
    },
}

/// All known tokens.
#[derive(Debug, Default)]
pub(super) struct Tokens(Vec<(TokenHash, Arc<Subject>)>);

impl Tokens {
    pub(super) fn read(path: &Path) -> Result<Self, TokensError> {
        if std::fs::metadata(path)?.len() > MAX_FILE_LEN {
            return Err(TokensError::TooLong);
        }
        Self::parse(&std::fs::read_to_string(path)?)
    }

    fn parse(text: &str) -> Result<Self, TokensError> {
        let mut tokens = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let token = parse_line(line).ok_or(TokensError::Line { line: index + 1 })?;
            tokens.push(token);
        }
        Ok(Self(tokens))
    }

    /// Returns the subject of `token`, or `None` if it is unknown. Compares with all tokens, so
    /// that the time doesn't tell which one matched.
    pub(super) fn find(&self, token: &str) -> Option<Arc<Subject>> {
        let hash = TokenHash::of(token)?;
        self.0.iter().fold(None, |found, (known, subject)| {
            if known.is(&hash) {
                Some(Arc::clone(subject))
            } else {
                found
            }
        })
    }
}

fn parse_line(line: &str) -> Option<(TokenHash, Arc<Subject>)> {
    let mut fields = line.split(':');
    let (name, hash) = (fields.next()?, TokenHash::parse(fields.next()?)?);
    let groups = fields.next().unwrap_or_default();
    let groups: Vec<_> = groups
        .split(',')
        .map(|group| group.trim().to_owned())
        .filter(|group| !group.is_empty())
        .collect();
    let is_good = is_name(name) && groups.iter().all(|group| is_name(group));
    let name = name.to_owned();
    (is_good && fields.next().is_none()).then(|| (hash, Arc::new(Subject { name, groups })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::NewToken;

    #[test]
    fn the_line_of_a_new_token_is_found_again() {
        let token = NewToken::generate().unwrap();
        let other = NewToken::generate().unwrap();
        let groups = ["ci".to_owned(), "admin".to_owned()];
        let line = token.line("alice", &groups).unwrap();

        let tokens = Tokens::parse(&format!("# people\n\n{line}\n")).unwrap();

        let found = tokens.find(token.secret()).unwrap();
        assert_eq!((&*found.name, &found.groups[..]), ("alice", &groups[..]));
        assert!(tokens.find(other.secret()).is_none());
        assert!(tokens.find("").is_none());
        assert!(!format!("{tokens:?} {token:?}").contains(token.secret()));
    }

    #[test]
    fn malformed_lines_are_refused_and_not_quoted() {
        let token = NewToken::generate().unwrap();
        let line = token.line("alice", &[]).unwrap();
        for bad in [
            format!("alice:{}", token.secret()),
            format!("alice {line}"),
            format!("{line}:a b"),
            format!("{line}:a:b"),
            "alice".to_owned(),
            format!(":{}", "a".repeat(64)),
        ] {
            let error = Tokens::parse(&format!("\n{bad}")).unwrap_err().to_string();
            assert!(
                error.starts_with("line 2") && !error.contains("cwfs_"),
                "{error}"
            );
        }
        assert!(token.line("a:b", &[]).is_none());
        assert!(NewToken::parse("cwfs_short").is_none());
    }
}
