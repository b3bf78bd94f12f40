//! The page for judging pairs of replies in a notebook.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::base::error::{Error, Result};
use crate::base::rng::sha256_hex;
use crate::eval::preferences::annotation::{PAIRWISE, read_columns};
use crate::eval::preferences::judgements::{Preference, judge, read_of};
use crate::show::pages;
use crate::show::server;
use crate::show::server::{Page, Reply};
use crate::show::view::View;

/// Shows a blind page over the pairs of an annotation folder in the cell's output. Every judgement
/// is written to the annotator's CSV file immediately. Several annotators may take turns.
///
/// # Errors
/// The folder has no annotation file, or the server does not start.
pub fn annotate(folder: impl AsRef<Path>) -> Result<View> {
    let folder = folder.as_ref().to_path_buf();
    let items = items(&folder)?;
    let n = items.len();
    let name = sha256_hex([folder.to_string_lossy().as_bytes()], 8);
    let page = Annotation { folder: folder.clone(), writing: Mutex::new(()) };
    let address = server::publish("annotate", &name, Arc::new(page))?;
    let last = format!(
        "<p>The running kernel shows {n} pairs to judge here. Without it, fill the column \
         preference of {PAIRWISE} with A, B or tie.</p>"
    );
    let html = pages::live_frame(&format!("annotation-{name}"), &address, &last, 640);
    Ok(View::new(html, format!("{n} pairs to judge\nannotation page: {address}")))
}

/// Writes the page as one HTML file that needs no kernel. It keeps judgements in the browser and
/// saves them as the original CSV file, to be put into the folder.
///
/// # Errors
/// The folder has no annotation file, or the page cannot be written.
pub fn annotate_offline(folder: impl AsRef<Path>, page: impl AsRef<Path>) -> Result<()> {
    let items = items(folder.as_ref())?;
    let key = sha256_hex([Value::from(items.clone()).to_string().as_bytes()], 16);
    let data = json!({ "title": TITLE, "items": items, "key": key });
    crate::base::files::write_atomic(page.as_ref(), pages::annotate(Some(&data)).as_bytes())
}

const TITLE: &str = "A or B?";

fn items(folder: &Path) -> Result<Vec<Value>> {
    let path = folder.join(PAIRWISE);
    if !path.exists() {
        let fix = "write the files first: write_annotation_files";
        return Err(Error::new("there is nothing to judge", path.display().to_string(), fix));
    }
    let rows = read_columns(&path, &["id", "prompt", "response_a", "response_b"])?;
    Ok(rows.iter().map(|r| json!({ "id": r[0], "prompt": r[1], "a": r[2], "b": r[3] })).collect())
}

/// The annotation page of a folder.
struct Annotation {
    folder: PathBuf,
    /// Judgements are written one at a time.
    writing: Mutex<()>,
}

impl Annotation {
    fn judge(&self, body: &str) -> Result<usize> {
        let value: Value = serde_json::from_str(body)?;
        let text = |name: &str| {
            let missing =
                || Error::new(format!("the request has no {name}"), body, "reload the page");
            value[name].as_str().ok_or_else(missing)
        };
        let preference = Preference::read(text("preference")?)?;
        let _guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        judge(&self.folder, text("annotator")?, text("id")?, preference)
    }

    fn judgements(&self, query: &str) -> Result<Value> {
        let annotator =
            query.split('&').find_map(|part| part.strip_prefix("annotator=")).unwrap_or_default();
        crate::eval::preferences::annotation::check_annotator(annotator)?;
        let judged = read_of(&self.folder, annotator)?;
        Ok(judged
            .into_iter()
            .map(|(id, preference)| (id, Value::from(preference.to_string())))
            .collect())
    }
}

fn document(value: Result<Value>) -> Reply {
    match value {
        Ok(value) => Reply::Document("application/json", value.to_string()),
        Err(error) => Reply::Bad(error.to_string()),
    }
}

impl Page for Annotation {
    fn get(&self, name: &str, query: &str) -> Reply {
        match name {
            "" => Reply::Document("text/html; charset=utf-8", pages::annotate(None)),
            "alive.svg" => Reply::Document("image/svg+xml", pages::DOT.into()),
            "items" => {
                document(items(&self.folder).map(|items| json!({ "title": TITLE, "items": items })))
            }
            "judgements" => document(self.judgements(query)),
            _ => Reply::NotFound,
        }
    }

    fn post(&self, name: &str, body: &str) -> Reply {
        match name {
            "judge" => document(self.judge(body).map(|judged| json!({ "judged": judged }))),
            _ => Reply::NotFound,
        }
    }
}
