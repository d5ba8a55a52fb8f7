//! The format of tokens, and the hashes that are stored in their place.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

/// The prefix of the daemon's own tokens. It tells them from upstream's.
pub(super) const PREFIX: &str = "cwfs_";
/// The shortest part after the prefix: a shorter one could be guessed.
const MIN_LEN: usize = 32;
const MAX_LEN: usize = 512;
const HASH_LEN: usize = 32;

/// The SHA-256 of a token. Tokens are random, so a slow password hash would add nothing.
#[derive(Clone, Copy)]
pub(super) struct TokenHash([u8; HASH_LEN]);

impl TokenHash {
    /// Returns the hash of `token`, or `None` if it doesn't have the format of the daemon's tokens.
    pub(super) fn of(token: &str) -> Option<Self> {
        let rest = token.strip_prefix(PREFIX)?;
        let is_good = (MIN_LEN..=MAX_LEN).contains(&rest.len())
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        is_good.then(|| Self::of_bytes(token.as_bytes()))
    }

    fn of_bytes(token: &[u8]) -> Self {
        let mut hash = [0; HASH_LEN];
        hash.copy_from_slice(digest(&SHA256, token).as_ref());
        Self(hash)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut hash = [0; HASH_LEN];
        let is_hex =
            text.len() == 2 * HASH_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex {
            return None;
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).ok()?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(Self(hash))
    }

    /// Compares in constant time.
    pub(super) fn is(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }

    fn to_text(self) -> String {
        to_hex(&self.0)
    }
}

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TokenHash")
    }
}

/// A token in plain text, for the `new-token` command and for a daemon that serves one client.
pub struct NewToken(String);

impl std::fmt::Debug for NewToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("NewToken")
    }
}

impl NewToken {
    /// Generates a token of 256 random bits, or returns `None` if the system provides no random
    /// numbers.
    pub fn generate() -> Option<Self> {
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).ok()?;
        Some(Self(format!("{PREFIX}{}", to_hex(&random))))
    }

    /// Parses an existing token, or returns `None` if it doesn't have the format of the daemon's
    /// tokens.
    pub fn parse(token: &str) -> Option<Self> {
        TokenHash::of(token).map(|_| Self(token.to_owned()))
    }

    /// Returns the token in plain text, to be handed to its user.
    pub fn secret(&self) -> &str {
        &self.0
    }

    pub(super) fn hash(&self) -> TokenHash {
        TokenHash::of_bytes(self.0.as_bytes())
    }

    /// Returns the line for the tokens file, or `None` if the name or a group has invalid
    /// characters.
    pub fn line(&self, name: &str, groups: &[String]) -> Option<String> {
        let is_good = is_name(name) && groups.iter().all(|group| is_name(group));
        let hash = self.hash().to_text();
        let groups = groups.join(",");
        is_good.then(|| match &*groups {
            "" => format!("{name}:{hash}"),
            groups => format!("{name}:{hash}:{groups}"),
        })
    }
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// Returns whether `name` is a valid name for a subject or a group.
pub(super) fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.@/".contains(&byte))
}
