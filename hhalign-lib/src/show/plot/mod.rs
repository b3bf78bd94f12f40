//! Figures from plain numbers, drawn by one routine for the notebook's SVG and the PNG on disk.
//!
//! A [`Figure`] holds [`Panel`]s (`panel.rs`), whose axes are in `axis.rs`. [`forest`] is the
//! forest plot, [`sparkline()`] a plot in a line of text.

mod axis;
pub mod forest;
mod panel;
mod sparkline;

use std::path::Path;
use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

use crate::base::error::{Error, Result};
use crate::show::table::escape;
pub use panel::{Measured, Panel};
pub use sparkline::sparkline;

/// Okabe and Ito's colours, which colour-blind readers can distinguish.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(120, 94, 240),
];
/// The placeholder in an SVG for the theme's text colour.
const INK: RGBColor = RGBColor(1, 2, 3);
/// The placeholder in an SVG for the colour of grid lines.
const GRID: RGBColor = RGBColor(4, 5, 6);

/// One or more panels side by side under a title.
#[derive(Debug, Clone, Default)]
pub struct Figure {
    title: String,
    note: String,
    panels: Vec<Panel>,
}

impl Figure {
    /// Makes a figure without panels.
    pub fn new(title: &str) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// Adds a panel on the right.
    #[must_use]
    pub fn panel(mut self, panel: Panel) -> Self {
        self.panels.push(panel);
        self
    }

    /// Adds a line of text under the figure.
    #[must_use]
    pub fn note(mut self, note: &str) -> Self {
        self.note = note.into();
        self
    }

    fn size(&self) -> (u32, u32) {
        (400 * self.panels.len().max(1) as u32, 310)
    }

    /// Renders the figure as SVG, in the colours of the page around it.
    ///
    /// # Errors
    /// Nothing to draw.
    pub fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        self.draw(
            &SVGBackend::with_string(&mut svg, self.size()).into_drawing_area(),
            INK,
            GRID,
            1,
        )?;
        let (width, _) = self.size();
        let titles = self.panels.iter().map(Panel::label);
        let parts: Vec<&str> =
            [self.title.as_str()].into_iter().chain(titles).chain([self.note.as_str()]).collect();
        Ok(themed(&svg, width, &parts))
    }

    /// Writes the figure as PNG, on white, at twice the size.
    ///
    /// # Errors
    /// Nothing to draw, or the file cannot be written.
    pub fn write_png(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (width, height) = self.size();
        let temporary = crate::base::files::temporary_beside(path)?.with_extension("png");
        {
            let area = BitMapBackend::new(&temporary, (2 * width, 2 * height)).into_drawing_area();
            area.fill(&WHITE).map_err(|e| failed(&e))?;
            self.draw(&area, RGBColor(34, 34, 34), RGBColor(225, 225, 225), 2)?;
            area.present().map_err(|e| failed(&e))?;
        }
        std::fs::rename(&temporary, path).map_err(|e| Error::io(path, e))
    }

    /// Writes the figure as a stand-alone SVG file, on white.
    ///
    /// # Errors
    /// Nothing to draw, or the file cannot be written.
    pub fn write_svg(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, self.size()).into_drawing_area();
            area.fill(&WHITE).map_err(|e| failed(&e))?;
            self.draw(&area, RGBColor(34, 34, 34), RGBColor(225, 225, 225), 1)?;
        }
        crate::base::files::write_atomic(path.as_ref(), svg.as_bytes())
    }

    /// Renders the figure as an HTML fragment: title, SVG and note.
    ///
    /// # Errors
    /// Nothing to draw.
    pub fn html(&self) -> Result<String> {
        let note = if self.note.is_empty() {
            String::new()
        } else {
            format!(
                "<figcaption style=\"opacity:.8;max-width:60em;padding:2px 12px\">{}</figcaption>",
                escape(&self.note)
            )
        };
        Ok(format!(
            "<figure style=\"margin:6px 0;color:var(--jp-content-font-color1,inherit)\">\
             {}{note}</figure>",
            self.svg()?
        ))
    }

    fn draw<B: DrawingBackend>(
        &self,
        root: &DrawingArea<B, Shift>,
        ink: RGBColor,
        grid: RGBColor,
        scale: u32,
    ) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        register_fonts();
        if self.panels.is_empty() {
            return Err(Error::new("a figure without panels", "nothing to draw", "add a Panel"));
        }
        // The title's letters are taller than its line.
        let root = root.margin(5 * scale, 0, 0, 0);
        let body = match self.title.as_str() {
            "" => root,
            title => root
                .titled(title, ("sans-serif", 17 * scale).into_font().color(&ink))
                .map_err(|e| failed(&e))?,
        };
        for (area, panel) in body.split_evenly((1, self.panels.len())).iter().zip(&self.panels) {
            panel.draw(area, ink, grid, scale).map_err(|e| failed(&*e))?;
        }
        Ok(())
    }
}

/// Registers the one font that measures text and draws it on disk.
fn register_fonts() {
    static FONT: Once = Once::new();
    FONT.call_once(|| {
        for style in [FontStyle::Normal, FontStyle::Bold] {
            let _ = register_font("sans-serif", style, epaint_default_fonts::UBUNTU_LIGHT);
        }
    });
}

/// Replaces placeholder colours by those of the page, and adds the parts' texts for screen readers.
fn themed(svg: &str, width: u32, parts: &[&str]) -> String {
    // Attributes become styles, since only styles can use JupyterLab's theme variables.
    let mut svg = svg.to_string();
    for (placeholder, colour) in
        [("#010203", "var(--jp-content-font-color1,currentColor)"), ("#040506", "#8888884d")]
    {
        for property in ["fill", "stroke"] {
            svg = svg.replace(
                &format!("{property}=\"{placeholder}\""),
                &format!("style=\"{property}:{colour}\""),
            );
        }
    }
    let parts: Vec<&str> = parts.iter().copied().filter(|p| !p.is_empty()).collect();
    let label = escape(&parts.join(". "));
    let style = format!("max-width:100%;height:auto;width:{width}px");
    svg.replacen(
        "<svg ",
        &format!("<svg role=\"img\" aria-label=\"{label}\" style=\"{style}\" "),
        1,
    )
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::new("the figure could not be drawn", error.to_string(), "")
}
