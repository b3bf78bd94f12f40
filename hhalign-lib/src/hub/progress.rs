//! How far a large download is, in whole lines.

use std::time::{Duration, Instant};

use super::Hub;

/// Smaller files are not told of.
const LARGE: u64 = 16 << 20;

/// The time from one line to the next.
const PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Progress<'a> {
    hub: &'a Hub,
    name: String,
    size: u64,
    first: u64,
    start: Instant,
    told: Instant,
}

impl<'a> Progress<'a> {
    /// Of a file of which `there` bytes are there already.
    pub fn new(hub: &'a Hub, name: String, there: u64, size: u64) -> Self {
        let now = Instant::now();
        if size >= LARGE {
            let rest = if there > 0 { format!(", {} of them here already", mebibytes(there)) } else { String::new() };
            hub.say(format_args!("{name}: {}{rest}", mebibytes(size)));
        }
        Self { hub, name, size, first: there, start: now, told: now }
    }

    /// Says how far it is, if there is something to say.
    pub fn update(&mut self, there: u64) {
        if self.size < LARGE || (there < self.size && self.told.elapsed() < PAUSE) {
            return;
        }
        self.told = Instant::now();
        let speed = (there - self.first) as f64 / self.start.elapsed().as_secs_f64().max(1e-3);
        let percent = 100 * there / self.size;
        self.hub.say(format_args!("{}: {percent}%, {}/s", self.name, mebibytes(speed as u64)));
    }
}

/// A number of bytes in MiB.
pub(super) fn mebibytes(bytes: u64) -> String {
    let value = bytes as f64 / f64::from(1 << 20);
    if value < 10.0 { format!("{value:.1} MiB") } else { format!("{value:.0} MiB") }
}
