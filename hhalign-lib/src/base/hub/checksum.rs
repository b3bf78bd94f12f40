//! Checksums of files as the hub gives them: SHA-256 for large files, git's for small ones.

use std::fs::File;
use std::io;
use std::path::Path;

use sha1::Sha1;
use sha2::digest::Update;
use sha2::{Digest, Sha256};

/// A checksum of a file, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checksum {
    /// The SHA-256 of the content.
    Sha256(String),
    /// The SHA-1 of git's object: the word blob, the length, a zero byte, the content.
    GitBlob(String),
}

impl Checksum {
    /// Reads an ETag; `None` if it has neither form.
    pub fn read(etag: &str) -> Option<Self> {
        let digits = etag.trim().trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
        match (digits.bytes().all(|b| b.is_ascii_hexdigit()), digits.len()) {
            (true, 64) => Some(Self::Sha256(digits)),
            (true, 40) => Some(Self::GitBlob(digits)),
            _ => None,
        }
    }

    /// The digits: the name of the file's content in the cache.
    pub fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::GitBlob(digits) => digits,
        }
    }

    /// Computes the checksum of a file on disk in the same form.
    pub fn of(&self, path: &Path) -> io::Result<String> {
        let mut file = File::open(path)?;
        let bytes = match self {
            Self::Sha256(_) => {
                let mut hash = Sha256::new();
                io::copy(&mut file, &mut hash)?;
                hash.finalize().to_vec()
            }
            Self::GitBlob(_) => {
                let mut hash = Sha1::new();
                Update::update(&mut hash, format!("blob {}\0", file.metadata()?.len()).as_bytes());
                io::copy(&mut file, &mut hash)?;
                hash.finalize().to_vec()
            }
        };
        Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'hello\n' | git hash-object --stdin`, and `sha256sum` of the same.
    const GIT: &str = "ce013625030ba8dba906f756967f9e9ca394464a";
    const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    #[test]
    fn checksums_are_gits_and_sha256() {
        let path = std::env::temp_dir().join(format!("hhalign-checksum-{}", std::process::id()));
        std::fs::write(&path, "hello\n").unwrap();
        for digits in [GIT, SHA256] {
            let sum = Checksum::read(&format!("\"{digits}\"")).unwrap();
            assert_eq!((sum.digits(), sum.of(&path).unwrap().as_str()), (digits, digits));
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn an_etag_of_another_form_is_no_checksum() {
        assert_eq!(Checksum::read(&format!("W/\"{GIT}\"")), Some(Checksum::GitBlob(GIT.into())));
        for other in
            ["", "\"\"", "\"5f3c-61b\"", &GIT[1..], "../../../../etc/passwd", &"x".repeat(40)]
        {
            assert_eq!(Checksum::read(other), None, "{other}");
        }
    }
}
