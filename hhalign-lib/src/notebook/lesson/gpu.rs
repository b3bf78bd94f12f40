//! Exercise of notebook 06: the memory of a GPU.

use crate::compute::gpu::{Memory, Storage};
use crate::model::Preset;
use crate::notebook::lesson::Check;

/// The number of tokens in the longest dialogue of the preset `gpt2`.
const DIALOGUE: usize = 1024;

/// Checks how many dialogues of 1,024 tokens SFT with the preset `gpt2` can take in one pass, on a
/// card with `megabytes` MB. Half of the tokens are predicted, and products are stored in 16 bits.
///
/// # Example
/// ```
/// use hhalign::notebook::lesson::gpu::check_micro_batch;
/// let found: Vec<usize> = (1..200).filter(|&n| check_micro_batch(n, 15_360).right).collect();
/// assert_eq!(found.len(), 1);
/// assert!(check_micro_batch(found[0] + 1, 15_360).because.contains("more than"));
/// assert!(check_micro_batch(found[0] - 1, 15_360).because.contains("one more"));
/// ```
pub fn check_micro_batch(n: usize, megabytes: usize) -> Check {
    let config = Preset::Gpt2.config(50_257);
    let needed = |n: usize| {
        Memory::plan(&config, n * DIALOGUE, n * DIALOGUE / 2, Storage::F16, false).megabytes()
    };
    let no = |because: String| Check { right: false, because };
    if n == 0 {
        return no("change the 0 to a number of dialogues, and run the cell again".into());
    }
    if needed(n) > megabytes {
        return no(format!(
            "{n} dialogues take {} MB, more than the card's {megabytes}",
            needed(n)
        ));
    }
    if needed(n + 1) <= megabytes {
        return no(format!(
            "{n} dialogues take {} MB, and one more still fits into {megabytes}",
            needed(n)
        ));
    }
    let (used, too_much) = (needed(n), needed(n + 1));
    Check {
        right: true,
        because: format!(
            "{n} dialogues take {used} MB of {megabytes}, one more would take {too_much}"
        ),
    }
}
