//! The live page of a run: what it shows, what it may ask for, and how a notebook's output holds it.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Run;
use super::shared::Shared;
use crate::error::Result;
use crate::pages;
use crate::server::{self, Page, Reply};
use crate::view::View;

/// Shortest time between two pictures that a browser is sent.
const PACE: Duration = Duration::from_millis(250);
/// After so long without news a browser is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(10);

impl Run {
    /// A chart that keeps moving in the cell's output while other cells run, with buttons to pause and stop.
    ///
    /// Where the browser cannot reach the page (the kernel has ended, or runs behind a proxy: see
    /// [`server::BASE_VARIABLE`]), the output shows the last state that it knows, and says why.
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

    /// Its state as JSON, with the records from `from` on.
    fn state(&self, from: usize) -> Value {
        let history = self.history();
        let records: Vec<Value> =
            history.records.iter().skip(from).map(|r| json!({ "step": r.step, "metrics": r.metrics })).collect();
        let marks: Vec<Value> = history.marks.iter().map(|m| json!({ "step": m.step, "text": m.text })).collect();
        let recipe = self.shared.recipe();
        json!({
            "id": self.name(), "name": self.name(), "kind": recipe.kind(), "phase": self.phase(), "note": self.note(),
            "error": self.error().map(|e| e.to_string()).unwrap_or_default(),
            "step": self.step(), "max_steps": recipe.train().max_steps,
            "seconds": self.shared.progress().map_or(0.0, |p| p.state.seconds), "seconds_left": self.seconds_left(),
            "tokens_per_s": self.tokens_per_s(),
            "from": from, "records": records, "marks": marks,
        })
    }

    fn tokens_per_s(&self) -> f64 {
        self.shared.progress().map_or(0.0, |p| (p.state.tokens / p.state.seconds.max(1e-9)).round())
    }
}

/// The page does not keep its run: one that has ended and that nobody holds is given back.
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
            // A notebook's output asks for it: a picture may come from anywhere, and tells nothing.
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
                        // The last record may still be added to by an evaluation: it is sent again.
                        let state = run.state(sent);
                        let text = state.to_string();
                        if text != last || over {
                            sent = (sent + state["records"].as_array().map_or(0, Vec::len)).saturating_sub(1);
                            last = text.clone();
                            std::thread::sleep(PACE.saturating_sub(begin.elapsed()));
                            return Some(text);
                        }
                        if begin.elapsed() > SILENCE {
                            return Some(String::new());
                        }
                        run.shared.wait_for_change(PACE);
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
