//! The secret of those who use a server's page and plain HTTP from other machines.

use crate::{
    field::{InvalidField, Quoted},
    platform::{Readers, readers},
};
use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// Fewest and most characters: 16 are 64 bits in hexadecimal, and a header holds the longest.
const CHARS: std::ops::RangeInclusive<usize> = 16..=256;

/// A secret of visible ASCII characters. It is never shown by `Debug`.
#[derive(Clone)]
pub struct HttpToken(Box<str>);

impl HttpToken {
    /// The token in the file at `path`, without the white space around it. Logs a warning when others than its owner may read the file.
    ///
    /// # Errors
    /// When the file cannot be read, or what it holds is no token.
    pub fn read(path: &Path) -> Result<Self, InvalidField> {
        let wrong = |problem: String| InvalidField::new("http-token", format!("{}: {problem}", Quoted(&path.to_string_lossy())));
        let mut text = String::new();
        let room = *CHARS.end() as u64 + 16;
        let read = File::open(path).and_then(|file| file.take(room).read_to_string(&mut text));
        read.map_err(|error: io::Error| {
            wrong(format!("cannot be read: {error}; give a file with a secret, such as one that `openssl rand -hex 32` printed"))
        })?;
        let token = Self::parse(text.trim()).map_err(|problem| wrong(problem.to_owned()))?;
        let whom = match readers(path) {
            Readers::Owner => return Ok(token),
            Readers::Group => "the group of the file",
            Readers::Everyone => "every user of this machine",
        };
        let path = path.display();
        tracing::warn!("{whom} can read the token of --http-token; run `chmod 600 {path}`");
        Ok(token)
    }

    /// The token as text.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if !CHARS.contains(&text.len()) {
            return Err("a token has 16 to 256 characters; make one with `openssl rand -hex 32`");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a token has visible ASCII characters only; make one with `openssl rand -hex 32`");
        }
        Ok(Self(text.into()))
    }

    /// The secret.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HttpToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_token_is_read_from_a_file_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let secret = "0123456789abcdef";
        fs::write(&path, format!("{secret}\n")).unwrap();
        let token = HttpToken::read(&path).unwrap();
        assert_eq!(token.reveal(), secret);
        assert!(!format!("{token:?}").contains(secret));
        for text in ["", "short", "0123456789 abcdef", "0123456789abcd\u{e9}", &"a".repeat(257), &"a".repeat(10_000)] {
            fs::write(&path, text).unwrap();
            let error = HttpToken::read(&path).unwrap_err();
            assert_eq!(error.field, "http-token");
            assert!(error.to_string().contains("openssl"), "{error}");
        }
        assert!(HttpToken::read(&folder.path().join("none")).unwrap_err().to_string().contains("cannot be read"));
    }
}
