//! A forest plot: many differences with their intervals, one below the other on one scale.

use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::base::error::{Error, Result};
use crate::show::plot::axis::{Axis, short};
use crate::show::plot::{GRID, INK, PALETTE, failed, register_fonts, themed};

/// The marker of a line; shape and colour both carry the meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// A full circle: a difference for the better.
    Good,
    /// A full square: a difference for the worse.
    Bad,
    /// A full triangle: a difference that is neither better nor worse.
    Other,
    /// An empty circle: no difference was shown.
    Open,
}

/// The old name of [`Marker`].
#[deprecated(since = "0.2.0", note = "renamed to Marker")]
pub type Sign = Marker;

/// One difference.
#[derive(Debug, Clone)]
pub struct Line {
    /// The name of the measure.
    pub name: String,
    /// The value, and the lower and upper end of its interval.
    pub at: [f64; 3],
    /// The marker.
    pub sign: Marker,
    /// The text next to the line.
    pub text: String,
}

/// Lines that share the meaning of negative and positive values.
#[derive(Debug, Clone)]
pub struct Group {
    /// The title of the group.
    pub title: String,
    /// The meaning of values below zero.
    pub left: String,
    /// The meaning of values above zero.
    pub right: String,
    /// The differences.
    pub lines: Vec<Line>,
}

/// Differences in groups over one axis with zero in the middle.
#[derive(Debug, Clone)]
pub struct Forest {
    /// The label of the axis.
    pub x: String,
    /// The groups from top to bottom; a group without lines is left out.
    pub groups: Vec<Group>,
}

/// Positions and sizes in pixels.
struct Layout {
    width: i32,
    plot: (i32, i32),
    /// Height of a group's title with the meanings of left and right.
    head: i32,
    row: i32,
    /// The vertical position of the interval within its row.
    bar: i32,
    narrow: bool,
}

const WIDE: Layout =
    Layout { width: 900, plot: (292, 632), head: 46, row: 27, bar: 13, narrow: false };
const NARROW: Layout =
    Layout { width: 380, plot: (14, 366), head: 64, row: 62, bar: 49, narrow: true };
const FOOT: i32 = 48;

impl Forest {
    /// Renders the plot as SVG in the colours of the page; `narrow` is for phones, with names above
    /// their lines.
    ///
    /// # Errors
    /// Nothing to draw.
    ///
    /// # Example
    /// ```
    /// use hhalign::show::plot::forest::{Forest, Group, Line, Marker};
    /// let line = Line {
    ///     name: "refusal".into(),
    ///     at: [0.28, 0.18, 0.38],
    ///     sign: Marker::Good,
    ///     text: "better".into(),
    /// };
    /// let group = Group {
    ///     title: "".into(),
    ///     left: "SFT better".into(),
    ///     right: "DPO better".into(),
    ///     lines: vec![line],
    /// };
    /// let svg = Forest { x: "Cohen's h".into(), groups: vec![group] }.svg(false)?;
    /// assert!(svg.contains("refusal"));
    /// # Ok::<(), hhalign::base::error::Error>(())
    /// ```
    pub fn svg(&self, narrow: bool) -> Result<String> {
        let groups: Vec<&Group> = self.groups.iter().filter(|g| !g.lines.is_empty()).collect();
        if groups.is_empty() {
            return Err(Error::new("a forest plot without lines", "nothing to draw", "add a Line"));
        }
        register_fonts();
        let layout = if narrow { NARROW } else { WIDE };
        let height =
            groups.iter().map(|g| layout.head + layout.row * g.lines.len() as i32).sum::<i32>()
                + FOOT;
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (layout.width as u32, height as u32))
                .into_drawing_area();
            self.draw(&area, &groups, &layout, height).map_err(|e| failed(&*e))?;
        }
        let lines = groups.iter().flat_map(|g| &g.lines).map(|l| format!("{}: {}", l.name, l.text));
        let parts: Vec<String> =
            [format!("Forest plot; {}", self.x)].into_iter().chain(lines).collect();
        Ok(themed(&svg, layout.width as u32, &parts.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        groups: &[&Group],
        layout: &Layout,
        height: i32,
    ) -> std::result::Result<(), Box<dyn std::error::Error>>
    where
        B::ErrorType: 'static,
    {
        let ends = groups.iter().flat_map(|g| &g.lines).flat_map(|l| l.at).chain([0.0]);
        let axis = Axis::around(ends, false);
        let at = |v: f64| axis.map(&v, layout.plot);
        let text = |size: i32, side: HPos| {
            ("sans-serif", size).into_font().color(&INK).pos(Pos::new(side, VPos::Center))
        };
        let write = |words: &str, (x, y): (i32, i32), size: i32, side: HPos| {
            area.draw(&Text::new(words.to_string(), (x, y), text(size, side)))
        };
        let bottom = height - FOOT;
        // In the narrow layout text is between the intervals, so grid lines are drawn at the
        // intervals only.
        let spans: Vec<(i32, i32)> = if layout.narrow {
            let tops = groups.iter().scan(0, |top, g| {
                let first = *top + layout.head + layout.bar;
                *top += layout.head + layout.row * g.lines.len() as i32;
                Some((0..g.lines.len() as i32).map(move |i| first + i * layout.row))
            });
            tops.flatten().map(|y| (y - 9, y + 9)).collect()
        } else {
            vec![(layout.head - 8, bottom)]
        };
        for (top, end) in spans {
            for tick in axis.key_points(7usize) {
                area.draw(&PathElement::new([(at(tick), top), (at(tick), end)], GRID))?;
            }
            area.draw(&PathElement::new([(at(0.0), top), (at(0.0), end)], INK.mix(0.7)))?;
        }
        for tick in axis.key_points(7usize) {
            write(&short(tick, false), (at(tick), bottom + 12), 13, HPos::Center)?;
        }
        write(&self.x, ((layout.plot.0 + layout.plot.1) / 2, bottom + 34), 13, HPos::Center)?;
        let mut top = 0;
        for group in groups {
            let words = top + layout.head - 16;
            let bold = ("sans-serif", 14, FontStyle::Bold).into_font().color(&INK);
            if layout.narrow {
                area.draw(&Text::new(group.title.clone(), (2, top + 20), bold))?;
            } else {
                let end = bold.pos(Pos::new(HPos::Right, VPos::Center));
                area.draw(&Text::new(group.title.clone(), (layout.plot.0 - 16, words), end))?;
            }
            if !group.left.is_empty() {
                write(&format!("← {}", group.left), (at(0.0) - 8, words), 12, HPos::Right)?;
                write(&format!("{} →", group.right), (at(0.0) + 8, words), 12, HPos::Left)?;
            }
            for (i, line) in group.lines.iter().enumerate() {
                let row = top + layout.head + i as i32 * layout.row;
                let y = row + layout.bar;
                if layout.narrow {
                    write(&line.name, (2, row + 10), 14, HPos::Left)?;
                    write(&line.text, (2, row + 28), 12, HPos::Left)?;
                } else {
                    write(&line.name, (layout.plot.0 - 16, y), 14, HPos::Right)?;
                    write(&line.text, (layout.plot.1 + 16, y), 13, HPos::Left)?;
                }
                line.draw(area, at(line.at[0]), (at(line.at[1]), at(line.at[2])), y)?;
            }
            top += layout.head + layout.row * group.lines.len() as i32;
        }
        Ok(())
    }
}

impl Line {
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        x: i32,
        (low, high): (i32, i32),
        y: i32,
    ) -> std::result::Result<(), Box<dyn std::error::Error>>
    where
        B::ErrorType: 'static,
    {
        let colour = match self.sign {
            Marker::Good => PALETTE[2],
            Marker::Bad => PALETTE[1],
            Marker::Other => PALETTE[0],
            Marker::Open => RGBColor(128, 128, 128),
        };
        area.draw(&PathElement::new([(low, y), (high, y)], colour.stroke_width(2)))?;
        for end in [low, high] {
            area.draw(&PathElement::new([(end, y - 4), (end, y + 4)], colour.stroke_width(1)))?;
        }
        match self.sign {
            Marker::Good => area.draw(&Circle::new((x, y), 5, colour.filled()))?,
            Marker::Bad => {
                area.draw(&Rectangle::new([(x - 5, y - 5), (x + 5, y + 5)], colour.filled()))?
            }
            Marker::Other => area.draw(&TriangleMarker::new((x, y), 6, colour.filled()))?,
            Marker::Open => area.draw(&Circle::new((x, y), 5, colour.stroke_width(2)))?,
        }
        Ok(())
    }
}
