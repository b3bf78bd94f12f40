//! The base address of a chat server.

use ureq::http::Uri;

use crate::base::error::{Error, Result};

/// A valid base address.
pub(super) struct Address {
    /// The address of questions.
    pub completions: String,
    /// The host, with the port if there is one.
    pub host: String,
    pub loopback: bool,
}

impl Address {
    /// # Errors
    /// Not http or https, no host, or a part that could contain a secret.
    pub fn read(url: &str) -> Result<Self> {
        let wrong = |got: &str| {
            let fix =
                "give a base address such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1";
            Error::new("the judge's address cannot be used", got, fix)
        };
        // The address may contain a password or a key, so it is not shown.
        if url.contains(['@', '?', '#']) {
            return Err(wrong("an address with a user name, a query or a fragment"));
        }
        let base = url.trim().trim_end_matches('/');
        let base = base.strip_suffix("/chat/completions").unwrap_or(base);
        let uri: Uri = base.parse().map_err(|_| wrong(&format!("{url:?}")))?;
        let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong(&format!("{url:?}")));
        };
        let name = authority.host().trim_matches(['[', ']']);
        Ok(Self {
            completions: format!("{base}/chat/completions"),
            host: authority.as_str().to_lowercase(),
            loopback: name == "localhost"
                || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
        })
    }
}
