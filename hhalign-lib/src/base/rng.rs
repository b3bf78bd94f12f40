//! Seeded random streams: a seed and a name determine a stream, so no draw depends on draws
//! elsewhere.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::base::error::{Error, Result};

/// The random generator used everywhere: fast, portable, the same on every machine.
pub type Rng = ChaCha8Rng;

/// Returns the stream of a seed, a name and a list of counters (epoch, step, row ...).
///
/// # Example
/// ```
/// use hhalign::base::rng::stream;
/// use rand::Rng as _;
/// let mut a = stream(7, "dropout", &[3]);
/// let mut b = stream(7, "dropout", &[3]);
/// assert_eq!(a.random::<u64>(), b.random::<u64>());
/// assert_ne!(stream(7, "dropout", &[4]).random::<u64>(), stream(7, "data", &[4]).random::<u64>());
/// ```
pub fn stream(seed: u64, name: &str, counters: &[u64]) -> Rng {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(name.as_bytes());
    for counter in counters {
        hash.update([0]);
        hash.update(counter.to_le_bytes());
    }
    Rng::from_seed(hash.finalize().into())
}

/// Returns the first `digits` hexadecimal digits of a SHA-256, which reports use to name data,
/// weights and tokenizers.
///
/// # Example
/// ```
/// assert_eq!(hhalign::base::rng::sha256_hex([b"abc".as_slice()], 8), "ba7816bf");
/// ```
pub fn sha256_hex<'a>(parts: impl IntoIterator<Item = &'a [u8]>, digits: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hex(hash, digits)
}

/// Returns [`sha256_hex`] of a file, which need not fit into memory.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_of_file(path: &std::path::Path, digits: usize) -> Result<String> {
    let mut hash = Sha256::new();
    let read = std::fs::File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut hash));
    read.map_err(|e| Error::io(path, e))?;
    Ok(hex(hash, digits))
}

fn hex(hash: Sha256, digits: usize) -> String {
    let mut hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    hex.truncate(digits);
    hex
}
