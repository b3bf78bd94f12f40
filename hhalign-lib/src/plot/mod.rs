//! From numbers to figures: one drawing routine for the notebook's SVG and the PNG on disk. It knows no tensors.

pub mod figures;

use std::path::Path;
use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

use crate::error::{Error, Result};
use crate::table::escape;

/// Okabe and Ito's colours, which colour-blind readers tell apart.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(120, 94, 240),
];
/// Stands for the theme's text colour in an SVG until it is replaced by it.
const INK: RGBColor = RGBColor(1, 2, 3);
/// The same for lines of the grid.
const GRID: RGBColor = RGBColor(4, 5, 6);

/// One or more panels side by side under a title.
#[derive(Debug, Clone, Default)]
pub struct Figure {
    title: String,
    note: String,
    panels: Vec<Panel>,
}

/// A pair of axes with curves or bars on it.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    title: String,
    x: String,
    y: String,
    lines: Vec<(String, Vec<(f64, f64)>)>,
    points: Vec<(String, Vec<(f64, f64)>)>,
    histograms: Vec<(String, Vec<f64>)>,
    level: Option<(f64, String)>,
    marks: Vec<(f64, String)>,
}

impl Panel {
    /// Axes with a title and labels.
    pub fn new(title: &str, x: &str, y: &str) -> Self {
        Self { title: title.into(), x: x.into(), y: y.into(), ..Self::default() }
    }

    /// With a curve through points; a curve without points is left out.
    #[must_use]
    pub fn line(mut self, name: &str, points: Vec<(f64, f64)>) -> Self {
        if !points.is_empty() {
            self.lines.push((name.into(), points));
        }
        self
    }

    /// With points that are not joined.
    #[must_use]
    pub fn scatter(mut self, name: &str, points: Vec<(f64, f64)>) -> Self {
        self.points.push((name.into(), points));
        self
    }

    /// With a histogram of values: shares of the values in 24 bins.
    #[must_use]
    pub fn histogram(mut self, name: &str, values: Vec<f64>) -> Self {
        self.histograms.push((name.into(), values));
        self
    }

    /// With vertical marks: something happened at x.
    #[must_use]
    pub fn marks(mut self, marks: Vec<(f64, String)>) -> Self {
        self.marks = marks;
        self
    }

    /// With a dashed level, such as the loss at chance.
    #[must_use]
    pub fn level(mut self, y: f64, name: &str) -> Self {
        self.level = Some((y, name.into()));
        self
    }
}

impl Figure {
    /// A figure without panels yet.
    pub fn new(title: &str) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// With one more panel to the right.
    #[must_use]
    pub fn panel(mut self, panel: Panel) -> Self {
        self.panels.push(panel);
        self
    }

    /// With a line of text under it.
    #[must_use]
    pub fn note(mut self, note: &str) -> Self {
        self.note = note.into();
        self
    }

    fn size(&self) -> (u32, u32) {
        (400 * self.panels.len().max(1) as u32, 310)
    }

    /// The figure as SVG, in the colours of the page it stands on.
    ///
    /// # Errors
    /// Nothing to draw.
    pub fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        self.draw(&SVGBackend::with_string(&mut svg, self.size()).into_drawing_area(), INK, GRID, 1)?;
        // Attributes become styles, since only styles understand the variables of JupyterLab's themes.
        let theme = [("#010203", "var(--jp-content-font-color1,currentColor)"), ("#040506", "#8888884d")];
        for (placeholder, colour) in theme {
            for property in ["fill", "stroke"] {
                svg = svg.replace(&format!("{property}=\"{placeholder}\""), &format!("style=\"{property}:{colour}\""));
            }
        }
        let (width, _) = self.size();
        let label = escape(&format!("{}. {}", self.title, self.note));
        Ok(svg.replacen(
            "<svg ",
            &format!("<svg role=\"img\" aria-label=\"{label}\" style=\"max-width:100%;height:auto;width:{width}px\" "),
            1,
        ))
    }

    /// Writes the figure as PNG, on white, at twice the size.
    ///
    /// # Errors
    /// Nothing to draw, or the file cannot be written.
    pub fn write_png(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (width, height) = self.size();
        let temporary = crate::files::temporary_beside(path)?.with_extension("png");
        {
            let area = BitMapBackend::new(&temporary, (2 * width, 2 * height)).into_drawing_area();
            area.fill(&WHITE).map_err(|e| failed(&e))?;
            self.draw(&area, RGBColor(34, 34, 34), RGBColor(225, 225, 225), 2)?;
            area.present().map_err(|e| failed(&e))?;
        }
        std::fs::rename(&temporary, path).map_err(|e| Error::io(path, &e))
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
        crate::files::write_atomic(path.as_ref(), svg.as_bytes())
    }

    /// The figure as an HTML fragment: title, SVG and note.
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
            "<figure style=\"margin:6px 0;color:var(--jp-content-font-color1,inherit)\">{}{note}</figure>",
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
        static FONT: Once = Once::new();
        FONT.call_once(|| {
            for style in [FontStyle::Normal, FontStyle::Bold] {
                let _ = register_font("sans-serif", style, epaint_default_fonts::UBUNTU_LIGHT);
            }
        });
        if self.panels.is_empty() {
            return Err(Error::new("a figure without panels", "nothing to draw", "add a Panel"));
        }
        // The title's letters stand higher than their line.
        let root = root.margin(5 * scale, 0, 0, 0);
        let body =
            root.titled(&self.title, ("sans-serif", 17 * scale).into_font().color(&ink)).map_err(|e| failed(&e))?;
        for (area, panel) in body.split_evenly((1, self.panels.len())).iter().zip(&self.panels) {
            panel.draw(area, ink, grid, scale).map_err(|e| failed(&*e))?;
        }
        Ok(())
    }
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::new("the figure could not be drawn", error.to_string(), "")
}

/// Lowest and highest of some numbers with a little room, also where there are none or they are all equal.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.filter(|v| v.is_finite()).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return (0.0, 1.0);
    }
    let room = if high > low { (high - low) * 0.06 } else { 0.5 };
    (low - room, high + room)
}

const BINS: usize = 24;

impl Panel {
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        ink: RGBColor,
        grid: RGBColor,
        scale: u32,
    ) -> std::result::Result<(), Box<dyn std::error::Error>>
    where
        B::ErrorType: 'static,
    {
        let drawn = || self.lines.iter().chain(&self.points).flat_map(|l| l.1.iter());
        let mut xs = range(drawn().map(|p| p.0).chain(self.histograms.iter().flat_map(|h| h.1.iter().copied())));
        let bars: Vec<(String, Vec<(f64, f64)>)> =
            self.histograms.iter().map(|(n, v)| (n.clone(), shares(v, xs))).collect();
        let heights = bars.iter().flat_map(|b| b.1.iter().map(|p| p.1));
        let mut ys = range(drawn().map(|p| p.1).chain(heights).chain(self.level.iter().map(|l| l.0)));
        if !self.histograms.is_empty() {
            (ys.0, xs) = (0.0, xs);
        }
        let area = self.draw_head(area, ink, scale)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(8 * scale)
            .margin_right(16 * scale)
            .x_label_area_size(38 * scale)
            .y_label_area_size(52 * scale)
            .build_cartesian_2d(xs.0..xs.1, ys.0..ys.1)?;
        chart
            .configure_mesh()
            .axis_style(ink)
            .light_line_style(TRANSPARENT)
            .bold_line_style(grid)
            .label_style(("sans-serif", 13 * scale).into_font().color(&ink))
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|v| short(*v))
            .y_label_formatter(&|v| short(*v))
            .draw()?;
        let width = (xs.1 - xs.0) / BINS as f64;
        for (i, (_, bars)) in bars.iter().enumerate() {
            let colour = PALETTE[i % PALETTE.len()];
            let boxes = bars
                .iter()
                .filter(|b| b.1 > 0.0)
                .map(|&(x, y)| Rectangle::new([(x, 0.0), (x + width, y)], colour.mix(0.8).filled()));
            chart.draw_series(boxes)?;
        }
        for (i, (_, points)) in self.lines.iter().enumerate() {
            let style = PALETTE[i % PALETTE.len()].stroke_width(2 * scale);
            match points.as_slice() {
                // A line through one point would not be seen.
                [point] => chart.draw_series([Circle::new(*point, 3 * scale, style.color.filled())])?,
                _ => chart.draw_series(LineSeries::new(points.iter().copied(), style))?,
            };
        }
        for (i, (_, points)) in self.points.iter().enumerate() {
            let style = PALETTE[(i + self.lines.len()) % PALETTE.len()].mix(0.55).filled();
            chart.draw_series(points.iter().map(|&p| Circle::new(p, 2 * scale, style)))?;
        }
        if let Some((level, _)) = &self.level {
            let dashes =
                DashedLineSeries::new([(xs.0, *level), (xs.1, *level)], 5, 4, ink.mix(0.6).stroke_width(scale));
            chart.draw_series(dashes)?;
        }
        for (x, _) in &self.marks {
            chart.draw_series([PathElement::new([(*x, ys.0), (*x, ys.1)], ink.mix(0.5).stroke_width(scale))])?;
        }
        let plotted = chart.plotting_area();
        let left = plotted.get_base_pixel().0;
        let width = plotted.dim_in_pixel().0 as i32;
        let pixels = plotted.strip_coord_spec();
        let font = ("sans-serif", 11 * scale).into_font().color(&ink);
        for (row, (x, text)) in self.marks.iter().enumerate() {
            // Beside its line, one below the other, and inside the axes.
            let (at, _) = plotted.map_coordinate(&(*x, ys.1));
            let needed = pixels.estimate_text_size(text, &font)?.0 as i32;
            let gap = 4 * scale as i32;
            let x = if at - left + gap + needed > width { at - left - gap - needed } else { at - left + gap };
            pixels.draw(&Text::new(text.clone(), (x.max(0), (row as i32 * 13 + 2) * scale as i32), font.clone()))?;
        }
        Ok(())
    }

    /// Title and legend above the axes, where no data is; gives back the area below them.
    fn draw_head<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        ink: RGBColor,
        scale: u32,
    ) -> std::result::Result<DrawingArea<B, Shift>, Box<dyn std::error::Error>>
    where
        B::ErrorType: 'static,
    {
        let area = area.titled(&self.title, ("sans-serif", 15 * scale).into_font().color(&ink))?;
        let entries = self.legend(ink);
        if entries.len() < 2 {
            return Ok(area);
        }
        let font = ("sans-serif", 12 * scale).into_font().color(&ink);
        let (left, row, sign, gap) = (60 * scale as i32, 16 * scale as i32, 16 * scale as i32, 12 * scale as i32);
        let width = area.dim_in_pixel().0 as i32;
        let (mut x, mut y) = (left, 0);
        let mut placed = vec![];
        for (name, kind, colour) in entries {
            let needed = sign + 4 * scale as i32 + area.estimate_text_size(&name, &font)?.0 as i32 + gap;
            if x + needed > width && x > left {
                (x, y) = (left, y + row);
            }
            placed.push((name, kind, colour, x, y));
            x += needed;
        }
        let (head, below) = area.split_vertically(y + row);
        for (name, kind, colour, x, y) in placed {
            let middle = y + row / 2;
            let line = |from: i32, to: i32| {
                PathElement::new([(x + from, middle), (x + to, middle)], colour.stroke_width(2 * scale))
            };
            match kind {
                Sign::Line => head.draw(&line(0, sign))?,
                Sign::Dashes => {
                    let dash = sign / 5;
                    (0..3).try_for_each(|i| head.draw(&line(2 * i * dash, (2 * i + 1) * dash)))?;
                }
                Sign::Dot => head.draw(&Circle::new((x + sign / 2, middle), 4 * scale as i32, colour.filled()))?,
                Sign::Box => {
                    head.draw(&Rectangle::new([(x, middle - row / 3), (x + sign, middle + row / 3)], colour.filled()))?
                }
            }
            head.draw(&Text::new(name, (x + sign + 4 * scale as i32, y + row / 6), font.clone()))?;
        }
        Ok(below)
    }

    /// Every series with its sign and colour, in the order in which they are drawn.
    fn legend(&self, ink: RGBColor) -> Vec<(String, Sign, RGBAColor)> {
        let colour = |i: usize| PALETTE[i % PALETTE.len()];
        let bars = self.histograms.iter().enumerate().map(|(i, h)| (h.0.clone(), Sign::Box, colour(i).mix(0.8)));
        let lines = self.lines.iter().enumerate().map(|(i, l)| (l.0.clone(), Sign::Line, colour(i).mix(1.0)));
        let from = self.lines.len();
        let points = self.points.iter().enumerate().map(|(i, p)| (p.0.clone(), Sign::Dot, colour(i + from).mix(0.7)));
        let level = self.level.iter().map(|(_, name)| (name.clone(), Sign::Dashes, ink.mix(0.6)));
        bars.chain(lines).chain(points).chain(level).collect()
    }
}

/// How a legend shows a series.
#[derive(Clone, Copy)]
enum Sign {
    Line,
    Dashes,
    Dot,
    Box,
}

/// The left edge of each bin and the share of the values in it.
fn shares(values: &[f64], (low, high): (f64, f64)) -> Vec<(f64, f64)> {
    let width = (high - low) / BINS as f64;
    let mut counts = [0usize; BINS];
    for v in values.iter().filter(|v| v.is_finite()) {
        counts[(((v - low) / width) as usize).min(BINS - 1)] += 1;
    }
    counts.iter().enumerate().map(|(i, &c)| (low + i as f64 * width, c as f64 / values.len().max(1) as f64)).collect()
}

/// A number on an axis: no longer than it must be.
fn short(v: f64) -> String {
    // Ticks are steps added up: what is left of zero by rounding is zero.
    let v = if v.abs() < 1e-9 { 0.0 } else { v };
    let size = v.abs();
    if size >= 10_000.0 {
        format!("{:.0}k", v / 1000.0)
    } else if size >= 100.0 || (v.fract() == 0.0) {
        format!("{v:.0}")
    } else if size >= 1.0 {
        format!("{v:.1}")
    } else {
        format!("{v:.2}")
    }
}
