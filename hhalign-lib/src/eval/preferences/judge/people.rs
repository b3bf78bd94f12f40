//! People as a judge: the files of annotators.

use std::collections::HashMap;
use std::path::Path;

use crate::base::error::Result;
use crate::eval::preferences::annotation::{PAIRWISE, read_columns, readable};
use crate::eval::preferences::judge::{Judge, Question};
use crate::eval::preferences::judgements::{Preference, plurality, read_judgements};

/// The judgements in an annotation folder: the most frequent one of several people, and a tie if
/// there is none.
///
/// People see each pair in one order, so questions in the other order have no answer.
#[derive(Debug, Clone)]
pub struct People {
    annotators: usize,
    said: HashMap<(String, String, String), Preference>,
}

impl People {
    /// Reads the judgements of all annotators of a folder.
    ///
    /// # Errors
    /// As [`read_judgements`].
    pub fn read(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let judged = read_judgements(folder)?;
        let mut said = HashMap::new();
        for row in
            read_columns(&folder.join(PAIRWISE), &["id", "prompt", "response_a", "response_b"])?
        {
            let [id, prompt, a, b] =
                <[String; 4]>::try_from(row).expect("four columns were asked for");
            let of_pair: Vec<Preference> =
                judged.values().filter_map(|of| of.get(&id).copied()).collect();
            if let Some(preference) = plurality(&of_pair) {
                said.insert((prompt, a, b), preference);
            }
        }
        Ok(Self { annotators: judged.values().filter(|of| !of.is_empty()).count(), said })
    }
}

impl Judge for People {
    fn identity(&self) -> String {
        format!("{} annotators, blind, each pair in one order", self.annotators)
    }

    fn judge(&self, questions: &[Question<'_>]) -> Result<Vec<Option<Preference>>> {
        let key =
            |q: &Question<'_>| (readable(q.prompt), q.a.trim().to_string(), q.b.trim().to_string());
        Ok(questions.iter().map(|q| self.said.get(&key(q)).copied()).collect())
    }
}
