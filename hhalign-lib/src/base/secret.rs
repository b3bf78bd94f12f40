//! Keys and tokens that are never shown.

use std::fmt;

/// A key that is never shown: not by `Debug`, not in errors, not in files.
///
/// # Example
/// ```
/// use hhalign::base::secret::ApiKey;
/// assert_eq!(format!("{:?}", ApiKey::new("sk-secret")), "ApiKey(hidden)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Wraps a key without the spaces around it.
    pub fn new(key: impl AsRef<str>) -> Self {
        Self(key.as_ref().trim().to_string())
    }

    /// Whether a header can hold it.
    pub(crate) fn is_sound(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|b| b.is_ascii_graphic())
    }

    /// The value of the header `Authorization`.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Removes the key from a text; short keys such as "none" are placeholders, not secrets.
    pub(crate) fn hide_in(&self, text: &str) -> String {
        if self.0.len() < 8 { text.into() } else { text.replace(&self.0, "[key]") }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(hidden)")
    }
}
