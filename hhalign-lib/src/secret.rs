//! Keys and tokens that are shown nowhere.

use std::fmt;

/// A key that is shown nowhere: not by `Debug`, not in errors, not in files.
///
/// # Example
/// ```
/// use hhalign::secret::ApiKey;
/// assert_eq!(format!("{:?}", ApiKey::new("sk-secret")), "ApiKey(hidden)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key, without the spaces around it.
    pub fn new(key: impl AsRef<str>) -> Self {
        Self(key.as_ref().trim().to_string())
    }

    /// Whether it can stand in a header.
    pub(crate) fn is_sound(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|b| b.is_ascii_graphic())
    }

    /// What the header `Authorization` says.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// A text without the key; short ones such as "none" are placeholders and not secrets.
    pub(crate) fn hide_in(&self, text: &str) -> String {
        if self.0.len() < 8 { text.into() } else { text.replace(&self.0, "[key]") }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(hidden)")
    }
}
