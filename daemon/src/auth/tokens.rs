//! The file of known tokens: names, hashes and groups.

use std::path::Path;
use std::sync::Arc;

use super::token::TokenHash;

/// A longer file is refused, in bytes: each request with a token looks at all of them.
const MAX_FILE_LEN: u64 = 1 << 20;

/// Who asks, as policies see them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Subject {
    /// Empty for whoever shows no token.
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

/// Why a tokens file can't be used. Says nothing of what is in the lines: they may hold a token by
/// mistake.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It can't be read.
    #[error("the file can't be read")]
    Read(#[from] std::io::Error),
    /// It is too long.
    #[error("the file is longer than {MAX_FILE_LEN} bytes")]
    TooLong,
    /// A line is no token's.
    #[error("line {line} is not name:sha256-of-the-token[:group,…]")]
    Line {
        /// Counted from 1.
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

    /// Whose token this is. Looks at all, whatever it finds.
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

/// Whether a subject or a group can be called this.
pub(super) fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.@/".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::NewToken;

    #[test]
    fn a_line_of_a_new_token_names_its_subject() {
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
    fn lines_that_are_not_understood_are_refused_and_not_repeated() {
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
