//! What a comparison depends on: data, tokenizer, weights, seed.

use std::path::Path;

use serde::Serialize;

use super::summary::file::FILE;
use super::summary::recorded::RecordedSummary;
use crate::base::error::Result;

/// A model in a comparison: its name, and the hash of its weights, which only the weights
/// themselves give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ModelId {
    /// Its name: SFT, DPO.
    pub name: String,
    /// The hash of its parameters.
    pub hash: String,
}

impl ModelId {
    /// β that the summary in a folder records for this model, if it is the second one there.
    pub(super) fn recorded_beta(&self, folder: &Path) -> Result<Option<f64>> {
        if !folder.join(FILE).exists() {
            return Ok(None);
        }
        let provenance = RecordedSummary::read(folder)?.content.provenance;
        Ok(provenance.beta.filter(|_| provenance.models[1].hash == self.hash))
    }
}

/// What a comparison depends on; files and tables name it with every value.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Provenance {
    /// The name of the data set.
    pub data: String,
    /// The hash of the data set.
    pub data_hash: String,
    /// The hash of the tokenizer.
    pub tokenizer_hash: String,
    /// The compared models.
    pub models: [ModelId; 2],
    /// The seed of data, training and sampling.
    pub seed: u64,
    /// β of the second model's training, as its run recorded it; `None` if no preference run is
    /// known.
    pub beta: Option<f64>,
}
