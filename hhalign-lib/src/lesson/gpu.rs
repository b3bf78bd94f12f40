//! Exercise of notebook 06: what fits into a GPU's memory.

use super::Check;
use crate::gpu::{Memory, Storage};
use crate::model::Preset;

/// Tokens of the longest dialogue that the preset `gpt2` takes.
const DIALOGUE: usize = 1024;

/// How many dialogues of 1,024 tokens can SFT with the preset `gpt2` take in one pass, on a card with so many MB? Half of the
/// tokens are predicted, and products are stored in 16 bits.
///
/// # Example
/// ```
/// use hhalign::lesson::gpu::check_micro_batch;
/// let found: Vec<usize> = (1..200).filter(|&n| check_micro_batch(n, 15_360).right).collect();
/// assert_eq!(found.len(), 1);
/// assert!(check_micro_batch(found[0] + 1, 15_360).because.contains("more than"));
/// assert!(check_micro_batch(found[0] - 1, 15_360).because.contains("one more"));
/// ```
pub fn check_micro_batch(n: usize, megabytes: usize) -> Check {
    let config = Preset::Gpt2.config(50_257);
    let needed = |n: usize| Memory::plan(&config, n * DIALOGUE, n * DIALOGUE / 2, Storage::F16, false).megabytes();
    let no = |because: String| Check { right: false, because };
    if n == 0 {
        return no("change the 0 to a number of dialogues, and run the cell again".into());
    }
    if needed(n) > megabytes {
        return no(format!("{n} dialogues take {} MB, more than the card's {megabytes}", needed(n)));
    }
    if needed(n + 1) <= megabytes {
        return no(format!("{n} dialogues take {} MB, and one more still fits into {megabytes}", needed(n)));
    }
    let (fits, not) = (needed(n), needed(n + 1));
    Check { right: true, because: format!("{n} dialogues take {fits} MB of {megabytes}, one more would take {not}") }
}
