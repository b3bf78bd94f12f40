//! The live page of a run: its state, its requests, and its frame in a notebook's output.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Run;
use super::shared::Shared;
use crate::base::error::Result;
use crate::show::pages;
use crate::show::server;
use crate::show::server::{Page, Reply};
use crate::show::view::View;

/// The shortest time between two updates to a browser.
const MIN_INTERVAL: Duration = Duration::from_millis(250);
/// The longest time without an update before a browser is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(10);

impl Run {
    /// Returns a chart in the cell's output that updates while other cells run, with buttons to
    /// pause and stop.
    ///
    /// If the browser cannot reach the page (the kernel has ended, or runs behind a proxy: see
    /// [`server::BASE_VARIABLE`]), the output shows the last state and says why.
    ///
    /// # Errors
    /// The server does not start.
    pub fn live(&self) -> Result<View> {
        let page = LivePage(Arc::downgrade(&self.shared));
        let address = server::publish("runs", &self.name(), Arc::new(page))?;
        let card = self.card()?;
        let text = format!("{}\nlive page: {address}", card.text());
        Ok(View::new(pages::live_frame(&self.name(), &address, card.html(), 520), text))
    }

    /// Returns the state as JSON, with the records from `from` on.
    fn state(&self, from: usize) -> Value {
        let history = self.history();
        let records: Vec<Value> = history
            .records
            .iter()
            .skip(from)
            .map(|r| json!({ "step": r.step, "metrics": r.metrics }))
            .collect();
        let marks: Vec<Value> =
            history.marks.iter().map(|m| json!({ "step": m.step, "text": m.text })).collect();
        let recipe = self.shared.recipe();
        json!({
            "id": self.name(), "name": self.name(), "kind": recipe.kind(),
            "phase": self.phase(), "note": self.note(),
            "error": self.error().map(|e| e.to_string()).unwrap_or_default(),
            "step": self.step(), "max_steps": recipe.train().max_steps,
            "seconds": self.shared.progress().map_or(0.0, |p| p.state.seconds),
            "seconds_left": self.seconds_left(),
            "tokens_per_s": self.tokens_per_s(),
            "from": from, "records": records, "marks": marks,
        })
    }

    fn tokens_per_s(&self) -> f64 {
        self.shared.progress().map_or(0.0, |p| (p.state.tokens / p.state.seconds.max(1e-9)).round())
    }
}

/// The page of a run. The weak reference does not keep the run in memory once it has ended and no
/// handle is left.
struct LivePage(Weak<Shared>);

impl LivePage {
    fn run(&self) -> Option<Run> {
        Some(Run::new(self.0.upgrade()?, String::new()))
    }
}

impl Page for LivePage {
    fn get(&self, name: &str, _query: &str) -> Reply {
        let Some(run) = self.run() else { return Reply::NotFound };
        match name {
            "" => Reply::Document("text/html; charset=utf-8", pages::live()),
            // A notebook's output loads this image as a probe: an image is allowed from any origin,
            // and contains nothing.
            "alive.svg" => Reply::Document("image/svg+xml", pages::DOT.into()),
            "state" => Reply::Document("application/json", run.state(0).to_string()),
            "events" => {
                let (mut sent, mut last, mut over) = (0, String::new(), false);
                Reply::Events(Box::new(move || {
                    if over {
                        return None;
                    }
                    let begin = Instant::now();
                    loop {
                        over = !run.phase().is_active();
                        // A later evaluation may add to the last record, so it is sent again.
                        let state = run.state(sent);
                        let text = state.to_string();
                        if text != last || over {
                            sent = (sent + state["records"].as_array().map_or(0, Vec::len))
                                .saturating_sub(1);
                            last = text.clone();
                            std::thread::sleep(MIN_INTERVAL.saturating_sub(begin.elapsed()));
                            return Some(text);
                        }
                        if begin.elapsed() > KEEPALIVE {
                            return Some(String::new());
                        }
                        run.shared.wait_for_change(MIN_INTERVAL);
                    }
                }))
            }
            _ => Reply::NotFound,
        }
    }

    fn post(&self, name: &str, _body: &str) -> Reply {
        let Some(run) = self.run() else { return Reply::NotFound };
        match name {
            "pause" => run.shared.pause(),
            "resume" => run.shared.resume(),
            "stop" => run.shared.stop(),
            _ => return Reply::NotFound,
        }
        Reply::Document("application/json", run.state(usize::MAX).to_string())
    }
}
