//! The progress of a large download, printed line by line.

use std::time::{Duration, Instant};

use crate::base::hub::Hub;

/// The smallest file that lines are printed for, in bytes.
const LARGE: u64 = 16 << 20;

/// The time between two lines.
const PAUSE: Duration = Duration::from_secs(5);

/// The progress of one download.
pub(super) struct Progress<'a> {
    hub: &'a Hub,
    name: String,
    size: u64,
    first: u64,
    start: Instant,
    printed: Instant,
}

impl<'a> Progress<'a> {
    /// Begins at the `received` bytes that the cache has already.
    pub fn new(hub: &'a Hub, name: String, received: u64, size: u64) -> Self {
        let now = Instant::now();
        if size >= LARGE {
            let rest = if received > 0 {
                format!(", {} of them in the cache already", mebibytes(received))
            } else {
                String::new()
            };
            hub.say(format_args!("{name}: {}{rest}", mebibytes(size)));
        }
        Self { hub, name, size, first: received, start: now, printed: now }
    }

    /// Prints a line if it is due.
    pub fn update(&mut self, received: u64) {
        if self.size < LARGE || (received < self.size && self.printed.elapsed() < PAUSE) {
            return;
        }
        self.printed = Instant::now();
        let speed = (received - self.first) as f64 / self.start.elapsed().as_secs_f64().max(1e-3);
        let percent = 100 * received / self.size;
        self.hub.say(format_args!("{}: {percent}%, {}/s", self.name, mebibytes(speed as u64)));
    }
}

/// Formats a number of bytes in MiB.
pub(super) fn mebibytes(bytes: u64) -> String {
    let value = bytes as f64 / f64::from(1 << 20);
    if value < 10.0 { format!("{value:.1} MiB") } else { format!("{value:.0} MiB") }
}
