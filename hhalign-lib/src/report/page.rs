//! A self-contained HTML page: sections, numbered figures and tables, and a table of contents.

use super::figures::Drawn;
use crate::show::table::escape;

const STYLE: &str = include_str!("style.css");

/// A page under construction, from top to bottom.
pub(super) struct Page {
    title: String,
    head: String,
    body: String,
    contents: Vec<String>,
    figures: usize,
    tables: usize,
}

impl Page {
    pub fn new(title: &str) -> Self {
        Self {
            title: title.into(),
            head: String::new(),
            body: String::new(),
            contents: vec![],
            figures: 0,
            tables: 0,
        }
    }

    /// Adds HTML above the table of contents.
    pub fn head(&mut self, html: &str) {
        self.head += html;
    }

    /// Begins a numbered section.
    pub fn section(&mut self, title: &str) {
        self.contents.push(title.into());
        let n = self.contents.len();
        self.body +=
            &format!("<h2 id=\"s{n}\"><span class=\"number\">{n}</span> {}</h2>", escape(title));
    }

    /// Adds HTML to the section.
    pub fn html(&mut self, html: &str) {
        self.body += html;
    }

    /// Adds a numbered figure.
    pub fn figure(&mut self, drawn: &Drawn) {
        self.figures += 1;
        self.body += &format!(
            "<figure>{}<figcaption><b>Figure {}.</b> {}</figcaption></figure>",
            drawn.plots, self.figures, drawn.caption
        );
    }

    /// Adds a numbered table; `class` is its name in the style sheet.
    pub fn table(&mut self, class: &str, inner: &str, caption: &str) {
        self.tables += 1;
        self.body += &format!(
            "<div class=\"table {class}\"><table role=\"table\"><caption><b>Table {}.</b> {caption}\
             </caption>{inner}</table></div>",
            self.tables
        );
    }

    /// Returns the whole page, with `foot` at its end.
    pub fn finish(self, foot: &str) -> String {
        let link = |(i, title): (usize, &String)| {
            format!("<li><a href=\"#s{}\">{}</a></li>", i + 1, escape(title))
        };
        let contents: String = self.contents.iter().enumerate().map(link).collect();
        let nav = if contents.is_empty() {
            String::new()
        } else {
            format!("<nav aria-label=\"Contents\"><ol>{contents}</ol></nav>")
        };
        // The policy prevents the page from loading anything, even if a text in it tries to.
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta \
             name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta \
             http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
             'unsafe-inline'\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<title>{}\
             </title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>{}</header>\n{nav}\n\
             <main>\n{}\n</main>\n<footer>{foot}</footer>\n</body>\n</html>\n",
            escape(&self.title),
            self.head,
            self.body
        )
    }
}
