//! A piece of HTML with its plain text, for cells that show more than a table or a figure.

/// HTML for notebooks, and the same content as text for other outputs.
#[derive(Debug, Clone)]
pub struct View {
    pub(crate) html: String,
    pub(crate) text: String,
}

impl View {
    /// Makes a view from HTML and text with the same content.
    pub fn new(html: impl Into<String>, text: impl Into<String>) -> Self {
        Self { html: html.into(), text: text.into() }
    }

    /// Returns the HTML fragment.
    pub fn html(&self) -> &str {
        &self.html
    }

    /// Returns the text.
    pub fn text(&self) -> &str {
        &self.text
    }
}
