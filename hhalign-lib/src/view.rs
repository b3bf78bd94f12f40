//! A piece of HTML with its plain text: what a cell shows where a table or a figure is not enough.

/// HTML for notebooks, and the same as text for everything else.
#[derive(Debug, Clone)]
pub struct View {
    pub(crate) html: String,
    pub(crate) text: String,
}

impl View {
    /// A view of both.
    pub fn new(html: impl Into<String>, text: impl Into<String>) -> Self {
        Self { html: html.into(), text: text.into() }
    }

    /// The HTML fragment.
    pub fn html(&self) -> &str {
        &self.html
    }

    /// The same as text.
    pub fn text(&self) -> &str {
        &self.text
    }
}
