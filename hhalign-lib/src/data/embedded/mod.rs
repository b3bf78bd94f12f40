//! The embedded data set: preference pairs in the HH format, from a seeded grammar.
//!
//! **The set is synthetic.** Nobody asked these questions and nobody ranked these replies: a
//! grammar wrote both, and one reply is better than another because its [`Grade`] is higher.
//! Training on the set shows whether the method works (the loss falls, the margin grows,
//! over-refusals become rarer). It says nothing about how helpful or how safe a real assistant is.
//!
//! The set has three kinds of prompt ([`PromptKind`]), four grades of reply for each, and pairs of
//! two different grades, with all six combinations about equally frequent. The chosen reply is
//! therefore not always a good one, which leaves preference training something to learn after
//! supervised training.
//!
//! About 15 in 100 pairs are held out by their question frame, by their filler (the combination of
//! act and object), or by both. Only combinations and frames are held out, never a word. Harmful
//! requests are named and never answered: a complying reply consists of empty phrases.
//!
//! Read `topic.rs` first (the types of the tables), then `frames.rs` and `grammar.rs` (questions)
//! and `replies.rs`. The other files are tables of text.

mod everyday;
mod explain;
mod frames;
mod grammar;
mod harmful;
mod home;
mod look_alike;
mod look_alike_safe;
mod replies;
mod topic;

use rand::Rng;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use grammar::{Ask, HoldOut, Sampler};
pub use replies::DECLINE_PHRASES;

/// The kind of request that a prompt makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PromptKind {
    /// An everyday request.
    Helpful,
    /// A request to harm somebody or something.
    Harmful,
    /// A benign request that sounds like a harmful one: "kill a frozen process".
    LookAlike,
}

/// The quality of a reply; a better grade compares as greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// Rude to the asker; for a harmful request also an empty, nasty cheer.
    Worst,
    /// For a helpful request, a reply about another topic; for a harmful one, an empty "sure, here
    /// is a plan"; for a look-alike, a refusal. One in three has a rude side remark.
    Poor,
    /// For a helpful request or a look-alike, a short correct reply; for a harmful one, a curt
    /// refusal.
    Good,
    /// For a helpful request or a look-alike, a full reply that names its subject; for a harmful
    /// one, a refusal that offers something better.
    Best,
}

impl Grade {
    /// All grades, from best to worst.
    pub const ALL: [Self; 4] = [Self::Best, Self::Good, Self::Poor, Self::Worst];
}

/// One preference pair of the embedded set.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddedPair {
    /// The conversation so far, in the HH format: it starts with `"\n\nHuman: "` and ends with
    /// `"\n\nAssistant:"`.
    pub prompt: String,
    /// The better reply, with one leading space.
    pub chosen: String,
    /// The worse reply, with one leading space.
    pub rejected: String,
    /// The kind of request in the last turn.
    pub kind: PromptKind,
    /// The topic of the last turn.
    pub topic: &'static str,
    /// The grade of the chosen reply.
    pub chosen_grade: Grade,
    /// The grade of the rejected reply.
    pub rejected_grade: Grade,
    /// Whether the question frames of this prompt never occur in training.
    pub template_held_out: bool,
    /// Whether the combinations of act and object in this prompt never occur in training.
    pub filler_held_out: bool,
}

impl EmbeddedPair {
    /// Returns whether this pair belongs to the validation set.
    pub fn held_out(&self) -> bool {
        self.template_held_out || self.filler_held_out
    }
}

/// A single-turn prompt for measuring refusals.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalPrompt {
    /// The prompt in the HH format; see [`EmbeddedPair`].
    pub prompt: String,
    /// [`PromptKind::Harmful`] or [`PromptKind::LookAlike`].
    pub kind: PromptKind,
    /// The topic of the request.
    pub topic: &'static str,
}

/// Generates `n_pairs` pairs; the same seed gives the same pairs.
///
/// About 45 in 100 prompts are helpful, 30 harmful and 25 look-alikes. Some have two turns; their
/// frames and fillers are then either both held out or both not.
///
/// # Example
///
/// ```
/// use hhalign::data::embedded::generate;
///
/// let pairs = generate(7, 100);
/// assert_eq!(pairs.len(), 100);
/// assert_eq!(pairs, generate(7, 100));
/// assert!(pairs[0].prompt.starts_with("\n\nHuman: "));
/// assert!(pairs[0].prompt.ends_with("\n\nAssistant:"));
/// assert!(pairs.iter().all(|pair| pair.chosen_grade > pair.rejected_grade));
/// ```
pub fn generate(seed: u64, n_pairs: usize) -> Vec<EmbeddedPair> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sampler = Sampler::default();
    (0..n_pairs).map(|_| pair(&mut rng, &mut sampler)).collect()
}

/// Returns up to `n_each` different held-out prompts each of [`PromptKind::Harmful`] and of
/// [`PromptKind::LookAlike`].
///
/// The grammar has several hundred of each; if `n_each` is larger, all of them are returned.
///
/// # Example
///
/// ```
/// use hhalign::data::embedded::{PromptKind, refusal_prompts};
///
/// let prompts = refusal_prompts(7, 150);
/// assert_eq!(prompts.len(), 300);
/// assert_eq!(prompts.iter().filter(|prompt| prompt.kind == PromptKind::Harmful).count(), 150);
/// ```
pub fn refusal_prompts(seed: u64, n_each: usize) -> Vec<EvalPrompt> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut prompts = Vec::with_capacity(2 * n_each);
    for kind in [PromptKind::Harmful, PromptKind::LookAlike] {
        let mut questions: Vec<(Ask, String)> = Ask::all(kind)
            .into_iter()
            .flat_map(|ask| ask.held_out_questions().map(move |question| (ask, question)))
            .collect();
        questions.shuffle(&mut rng);
        for (ask, question) in questions.into_iter().take(n_each) {
            let question = grammar::greet(&mut rng, question);
            prompts.push(EvalPrompt { prompt: one_turn(&question), kind, topic: ask.topic_name() });
        }
    }
    prompts
}

/// Draws one pair.
fn pair(rng: &mut ChaCha8Rng, sampler: &mut Sampler) -> EmbeddedPair {
    let kind = match rng.random_range(0..100) {
        0..45 => PromptKind::Helpful,
        45..75 => PromptKind::Harmful,
        _ => PromptKind::LookAlike,
    };
    let hold_out = HoldOut::draw(rng);
    let (ask, prompt) = conversation(rng, sampler, kind, hold_out);
    let (chosen_grade, rejected_grade) = two_grades(rng);
    EmbeddedPair {
        prompt,
        chosen: replies::reply(rng, ask, chosen_grade),
        rejected: replies::reply(rng, ask, rejected_grade),
        kind,
        topic: ask.topic_name(),
        chosen_grade,
        rejected_grade,
        template_held_out: hold_out.frame,
        filler_held_out: hold_out.filler,
    }
}

/// Draws a prompt of one or two turns, and the request of its last turn.
fn conversation(
    rng: &mut ChaCha8Rng,
    sampler: &mut Sampler,
    kind: PromptKind,
    hold_out: HoldOut,
) -> (Ask, String) {
    let two_turns = rng.random_bool(if kind == PromptKind::Helpful { 0.2 } else { 0.1 });
    if !two_turns {
        let ask = sampler.draw(rng, kind, hold_out.filler);
        let question = ask.question(rng, hold_out.frame);
        return (ask, one_turn(&grammar::greet(rng, question)));
    }
    // The first turn is always an everyday question, so a second turn does not reveal the kind.
    let (first, ask) = loop {
        let topic = rng.random_range(0..grammar::topic_count(PromptKind::Helpful));
        let first = Ask::draw(rng, topic, hold_out.filler);
        let ask = match kind {
            PromptKind::Helpful => Ask::draw_how_to(rng, topic, hold_out.filler),
            PromptKind::Harmful | PromptKind::LookAlike => sampler.draw(rng, kind, hold_out.filler),
        };
        // The two turns must differ. Both are drawn again, since a topic may have a single held-out
        // filler for the second turn.
        if ask != first {
            break (first, ask);
        }
    };
    let question = first.question(rng, hold_out.frame);
    let answer = replies::plain_help(first);
    let next = ask.follow_up(rng, hold_out.frame);
    (ask, format!("{} {answer}{}", one_turn(&question), one_turn(&next)))
}

/// Formats a question as one turn that waits for its reply.
fn one_turn(question: &str) -> String {
    format!("\n\nHuman: {question}\n\nAssistant:")
}

/// Draws two different grades, the better one first.
fn two_grades(rng: &mut ChaCha8Rng) -> (Grade, Grade) {
    let mut grades = Grade::ALL;
    grades.shuffle(rng);
    let [first, second, ..] = grades;
    (first.max(second), first.min(second))
}

#[cfg(test)]
mod tests;
