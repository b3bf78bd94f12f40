//! A panel: one pair of axes with its curves, points or bars.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::show::plot::PALETTE;
use crate::show::plot::axis::{Axis, short};

/// A pair of axes with curves, points or bars.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    title: String,
    x: String,
    y: String,
    lines: Vec<(String, Vec<(f64, f64)>)>,
    points: Vec<(String, Vec<(f64, f64)>)>,
    measured: Vec<(String, Vec<Measured>)>,
    histograms: Vec<(String, Vec<f64>)>,
    level: Option<(f64, String)>,
    marks: Vec<(f64, String)>,
    log_x: bool,
    log_y: bool,
}

/// A point with an interval in both directions.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Value, lower and upper end along x.
    pub x: [f64; 3],
    /// Value, lower and upper end along y.
    pub y: [f64; 3],
    /// The text next to the point; may be empty.
    pub label: String,
}

impl Panel {
    /// Makes axes with a title and labels.
    pub fn new(title: &str, x: &str, y: &str) -> Self {
        Self { title: title.into(), x: x.into(), y: y.into(), ..Self::default() }
    }

    /// Adds a curve through points; a curve without points is left out.
    #[must_use]
    pub fn line(mut self, name: &str, points: Vec<(f64, f64)>) -> Self {
        if !points.is_empty() {
            self.lines.push((name.into(), points));
        }
        self
    }

    /// Adds points that are not joined.
    #[must_use]
    pub fn scatter(mut self, name: &str, points: Vec<(f64, f64)>) -> Self {
        self.points.push((name.into(), points));
        self
    }

    /// Adds points with intervals along x and y, joined by a thin line.
    #[must_use]
    pub fn measured(mut self, name: &str, points: Vec<Measured>) -> Self {
        self.measured.push((name.into(), points));
        self
    }

    /// Makes the x axis logarithmic; values must be above 0.
    #[must_use]
    pub fn log_x(mut self) -> Self {
        self.log_x = true;
        self
    }

    /// Makes the y axis logarithmic; values must be above 0, which excludes histograms.
    #[must_use]
    pub fn log_y(mut self) -> Self {
        self.log_y = true;
        self
    }

    /// Adds a histogram of values: shares of the values in 24 bins.
    #[must_use]
    pub fn histogram(mut self, name: &str, values: Vec<f64>) -> Self {
        self.histograms.push((name.into(), values));
        self
    }

    /// Sets vertical marks: events at x.
    #[must_use]
    pub fn marks(mut self, marks: Vec<(f64, String)>) -> Self {
        self.marks = marks;
        self
    }

    /// Sets a dashed level, such as the loss at chance.
    #[must_use]
    pub fn level(mut self, y: f64, name: &str) -> Self {
        self.level = Some((y, name.into()));
        self
    }
}

impl Panel {
    /// Returns the panel's label for screen readers.
    pub(super) fn label(&self) -> &str {
        &self.title
    }

    pub(super) fn draw<B: DrawingBackend>(
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
        let ends = |of: fn(&Measured) -> [f64; 3]| {
            self.measured.iter().flat_map(move |m| m.1.iter().flat_map(of))
        };
        let values =
            drawn().map(|p| p.0).chain(self.histograms.iter().flat_map(|h| h.1.iter().copied()));
        let xs = Axis::around(values.chain(ends(|m| m.x)), self.log_x);
        let bars: Vec<(String, Vec<(f64, f64)>)> = self
            .histograms
            .iter()
            .map(|(n, v)| (n.clone(), shares(v, (xs.low, xs.high))))
            .collect();
        let heights = bars.iter().flat_map(|b| b.1.iter().map(|p| p.1));
        let values = drawn().map(|p| p.1).chain(heights).chain(self.level.iter().map(|l| l.0));
        let mut ys = Axis::around(values.chain(ends(|m| m.y)), self.log_y);
        if !self.histograms.is_empty() {
            ys.low = 0.0;
        }
        let area = self.draw_head(area, ink, scale)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(8 * scale)
            .margin_right(16 * scale)
            .x_label_area_size(38 * scale)
            .y_label_area_size(52 * scale)
            .build_cartesian_2d(xs, ys)?;
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
            .x_label_formatter(&|v| short(*v, self.log_x))
            .y_label_formatter(&|v| short(*v, self.log_y))
            .draw()?;
        let width = (xs.high - xs.low) / BINS as f64;
        for (i, (_, bars)) in bars.iter().enumerate() {
            let colour = PALETTE[i % PALETTE.len()];
            let boxes = bars.iter().filter(|b| b.1 > 0.0).map(|&(x, y)| {
                Rectangle::new([(x, 0.0), (x + width, y)], colour.mix(0.8).filled())
            });
            chart.draw_series(boxes)?;
        }
        for (i, (_, points)) in self.lines.iter().enumerate() {
            let style = PALETTE[i % PALETTE.len()].stroke_width(2 * scale);
            match points.as_slice() {
                // A line through one point would be invisible.
                [point] => {
                    chart.draw_series([Circle::new(*point, 3 * scale, style.color.filled())])?
                }
                _ => chart.draw_series(LineSeries::new(points.iter().copied(), style))?,
            };
        }
        for (i, (_, points)) in self.points.iter().enumerate() {
            let style = PALETTE[(i + self.lines.len()) % PALETTE.len()].mix(0.55).filled();
            chart.draw_series(points.iter().map(|&p| Circle::new(p, 2 * scale, style)))?;
        }
        let font = ("sans-serif", 11 * scale).into_font().color(&ink);
        for (i, (_, points)) in self.measured.iter().enumerate() {
            let colour = PALETTE[(i + self.lines.len() + self.points.len()) % PALETTE.len()];
            let path = points.iter().map(|m| (m.x[0], m.y[0]));
            chart.draw_series(LineSeries::new(path, colour.mix(0.4).stroke_width(scale)))?;
            for Measured { x, y, .. } in points {
                let whiskers = [[(x[1], y[0]), (x[2], y[0])], [(x[0], y[1]), (x[0], y[2])]];
                chart.draw_series(
                    whiskers.map(|w| PathElement::new(w, colour.mix(0.6).stroke_width(scale))),
                )?;
                chart.draw_series([Circle::new((x[0], y[0]), 4 * scale, colour.filled())])?;
            }
        }
        if let Some((level, _)) = &self.level {
            let dashes = DashedLineSeries::new(
                [(xs.low, *level), (xs.high, *level)],
                5,
                4,
                ink.mix(0.6).stroke_width(scale),
            );
            chart.draw_series(dashes)?;
        }
        for (x, _) in &self.marks {
            chart.draw_series([PathElement::new(
                [(*x, ys.low), (*x, ys.high)],
                ink.mix(0.5).stroke_width(scale),
            )])?;
        }
        let plotted = chart.plotting_area();
        let (left, top) = plotted.get_base_pixel();
        let width = plotted.dim_in_pixel().0 as i32;
        let pixels = plotted.strip_coord_spec();
        for Measured { x, y, label } in self.measured.iter().flat_map(|m| &m.1) {
            // The label is on the right of its point, or on the left if it does not fit there.
            let (at, height) = plotted.map_coordinate(&(x[0], y[0]));
            let (needed, gap) =
                (pixels.estimate_text_size(label, &font)?.0 as i32, 6 * scale as i32);
            let x = if at - left + gap + needed > width {
                at - left - gap - needed
            } else {
                at - left + gap
            };
            pixels.draw(&Text::new(
                label.clone(),
                (x, height - top - 14 * scale as i32),
                font.clone(),
            ))?;
        }
        for (row, (x, text)) in self.marks.iter().enumerate() {
            // Texts are next to their marks, one below the other, inside the axes.
            let (at, _) = plotted.map_coordinate(&(*x, ys.high));
            let needed = pixels.estimate_text_size(text, &font)?.0 as i32;
            let gap = 4 * scale as i32;
            let x = if at - left + gap + needed > width {
                at - left - gap - needed
            } else {
                at - left + gap
            };
            pixels.draw(&Text::new(
                text.clone(),
                (x.max(0), (row as i32 * 13 + 2) * scale as i32),
                font.clone(),
            ))?;
        }
        Ok(())
    }

    /// Draws title and legend above the axes, where no data is; returns the area below them.
    fn draw_head<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        ink: RGBColor,
        scale: u32,
    ) -> std::result::Result<DrawingArea<B, Shift>, Box<dyn std::error::Error>>
    where
        B::ErrorType: 'static,
    {
        let area = match self.title.as_str() {
            "" => area.clone(),
            title => area.titled(title, ("sans-serif", 15 * scale).into_font().color(&ink))?,
        };
        let entries = self.legend(ink);
        if entries.len() < 2 {
            return Ok(area);
        }
        let font = ("sans-serif", 12 * scale).into_font().color(&ink);
        let (left, row, key_width, gap) =
            (60 * scale as i32, 16 * scale as i32, 16 * scale as i32, 12 * scale as i32);
        let width = area.dim_in_pixel().0 as i32;
        let (mut x, mut y) = (left, 0);
        let mut placed = vec![];
        for (name, kind, colour) in entries {
            let needed = key_width
                + 4 * scale as i32
                + area.estimate_text_size(&name, &font)?.0 as i32
                + gap;
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
                PathElement::new(
                    [(x + from, middle), (x + to, middle)],
                    colour.stroke_width(2 * scale),
                )
            };
            match kind {
                LegendKey::Line => head.draw(&line(0, key_width))?,
                LegendKey::Dashes => {
                    let dash = key_width / 5;
                    (0..3).try_for_each(|i| head.draw(&line(2 * i * dash, (2 * i + 1) * dash)))?;
                }
                LegendKey::Dot => head.draw(&Circle::new(
                    (x + key_width / 2, middle),
                    4 * scale as i32,
                    colour.filled(),
                ))?,
                LegendKey::Box => head.draw(&Rectangle::new(
                    [(x, middle - row / 3), (x + key_width, middle + row / 3)],
                    colour.filled(),
                ))?,
            }
            head.draw(&Text::new(
                name,
                (x + key_width + 4 * scale as i32, y + row / 6),
                font.clone(),
            ))?;
        }
        Ok(below)
    }

    /// Returns the name, key and colour of every series, in drawing order.
    fn legend(&self, ink: RGBColor) -> Vec<(String, LegendKey, RGBAColor)> {
        let colour = |i: usize| PALETTE[i % PALETTE.len()];
        let bars = self
            .histograms
            .iter()
            .enumerate()
            .map(|(i, h)| (h.0.clone(), LegendKey::Box, colour(i).mix(0.8)));
        let lines = self
            .lines
            .iter()
            .enumerate()
            .map(|(i, l)| (l.0.clone(), LegendKey::Line, colour(i).mix(1.0)));
        let from = self.lines.len();
        let points = self
            .points
            .iter()
            .enumerate()
            .map(|(i, p)| (p.0.clone(), LegendKey::Dot, colour(i + from).mix(0.7)));
        let from = from + self.points.len();
        let measured = self
            .measured
            .iter()
            .enumerate()
            .map(|(i, m)| (m.0.clone(), LegendKey::Dot, colour(i + from).mix(1.0)));
        let level =
            self.level.iter().map(|(_, name)| (name.clone(), LegendKey::Dashes, ink.mix(0.6)));
        bars.chain(lines).chain(points).chain(measured).chain(level).collect()
    }
}

const BINS: usize = 24;

/// The key of a series in the legend.
#[derive(Clone, Copy)]
enum LegendKey {
    Line,
    Dashes,
    Dot,
    Box,
}

/// Returns the left edge of each bin and the share of the values in it.
fn shares(values: &[f64], (low, high): (f64, f64)) -> Vec<(f64, f64)> {
    let width = (high - low) / BINS as f64;
    let mut counts = [0usize; BINS];
    for v in values.iter().filter(|v| v.is_finite()) {
        counts[(((v - low) / width) as usize).min(BINS - 1)] += 1;
    }
    counts
        .iter()
        .enumerate()
        .map(|(i, &c)| (low + i as f64 * width, c as f64 / values.len().max(1) as f64))
        .collect()
}
