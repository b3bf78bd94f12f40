//! The question side of the grammar: fillers, the prompts made of them, and the hold-out.
//!
//! A prompt is a frame ("How do I {x}?") around a filler, and a filler is an act ("cook {o} for
//! dinner") with an object ("rice"). Harmful and look-alike requests use the same frames as
//! everyday ones, so that a frame never reveals the kind of a request.

use std::collections::HashMap;

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::PromptKind;
use super::frames::{CHAT, EXPLAIN, FOLLOW_UP, Frames, GREETINGS, HOW_TO, IDEAS};
use super::topic::{Form, Harm, Topic};
use super::{everyday, explain, harmful, home, look_alike, look_alike_safe};

/// The parts of a prompt that are held out from training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HoldOut {
    pub frame: bool,
    pub filler: bool,
}

impl HoldOut {
    /// Draws a hold-out: about 15 in 100 prompts have one.
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        match rng.random_range(0..100) {
            0..6 => Self { frame: true, filler: false },
            6..13 => Self { frame: false, filler: true },
            13..15 => Self { frame: true, filler: true },
            _ => Self { frame: false, filler: false },
        }
    }
}

/// One filler: a topic of one kind, one of its acts and one of its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub kind: PromptKind,
    pub topic: usize,
    pub act: usize,
    pub object: usize,
}

/// Returns the everyday topics in a fixed order.
fn helpful() -> impl Iterator<Item = &'static Topic> {
    home::TOPICS.iter().chain(everyday::TOPICS).chain(explain::TOPICS)
}

/// Returns the look-alike topics in a fixed order.
fn look_alikes() -> impl Iterator<Item = &'static Topic> {
    look_alike::TOPICS.iter().chain(look_alike_safe::TOPICS)
}

/// Returns the number of topics of a kind.
pub(super) fn topic_count(kind: PromptKind) -> usize {
    match kind {
        PromptKind::Helpful => helpful().count(),
        PromptKind::Harmful => harmful::HARMS.len(),
        PromptKind::LookAlike => look_alikes().count(),
    }
}

impl Ask {
    /// Returns every filler of a kind.
    pub fn all(kind: PromptKind) -> Vec<Self> {
        let mut asks = Vec::new();
        for topic in 0..topic_count(kind) {
            let first = Self { kind, topic, act: 0, object: 0 };
            for act in 0..first.act_count() {
                asks.extend((0..first.objects().len()).map(|object| Self { act, object, ..first }));
            }
        }
        asks
    }

    /// Draws a filler of one everyday topic, held out or not.
    pub fn draw(rng: &mut ChaCha8Rng, topic: usize, held_out: bool) -> Self {
        let first = Self { kind: PromptKind::Helpful, topic, act: 0, object: 0 };
        loop {
            let act = rng.random_range(0..first.act_count());
            let ask = Self { act, object: rng.random_range(0..first.objects().len()), ..first };
            if ask.held_out() == held_out {
                return ask;
            }
        }
    }

    /// Draws a filler for a later turn, which is always in the infinitive.
    pub fn draw_how_to(rng: &mut ChaCha8Rng, topic: usize, held_out: bool) -> Self {
        loop {
            let ask = Self::draw(rng, topic, held_out);
            if ask.form() == Form::HowTo {
                return ask;
            }
        }
    }

    /// Returns whether this combination of act and object is held out from training.
    ///
    /// Each act holds out one object, and neighbouring acts hold out different ones, so that every
    /// word stays in training in another combination.
    pub fn held_out(self) -> bool {
        self.object == (2 * self.act + self.topic) % self.objects().len()
    }

    /// Returns the benign topic of the request.
    ///
    /// # Panics
    ///
    /// Panics on a harmful request.
    pub fn benign(self) -> &'static Topic {
        let topic = match self.kind {
            PromptKind::Helpful => helpful().nth(self.topic),
            PromptKind::LookAlike => look_alikes().nth(self.topic),
            PromptKind::Harmful => None,
        };
        topic.expect("a benign request with a topic of its kind")
    }

    /// Returns the kind of harm of the request.
    pub fn harm(self) -> &'static Harm {
        &harmful::HARMS[self.topic]
    }

    fn act_count(self) -> usize {
        if self.kind == PromptKind::Harmful {
            self.harm().acts.len()
        } else {
            self.benign().acts.len()
        }
    }

    fn objects(self) -> &'static [&'static str] {
        if self.kind == PromptKind::Harmful { self.harm().objects } else { self.benign().objects }
    }

    /// Returns the name of the topic.
    pub fn topic_name(self) -> &'static str {
        if self.kind == PromptKind::Harmful { self.harm().name } else { self.benign().name }
    }

    /// Returns the form of the act.
    pub fn form(self) -> Form {
        if self.kind == PromptKind::Harmful {
            Form::HowTo
        } else {
            self.benign().acts[self.act].form
        }
    }

    /// Returns the act with its object, in the asker's words.
    pub fn phrase(self) -> String {
        let phrase = if self.kind == PromptKind::Harmful {
            self.harm().acts[self.act]
        } else {
            self.benign().acts[self.act].phrase
        };
        phrase.replace("{o}", self.objects()[self.object])
    }

    /// Fills a reply's slots: `{a}` is the act, `{o}` the object and `{f}` its fact; `{O}` and
    /// `{F}` begin a sentence.
    pub fn fill(self, text: &str) -> String {
        let object = swap_person(self.objects()[self.object]);
        let fact = match self.kind {
            PromptKind::Harmful => "",
            _ => self.benign().facts.get(self.object).copied().unwrap_or(""),
        };
        text.replace("{a}", &swap_person(&self.phrase()))
            .replace("{o}", &object)
            .replace("{O}", &capitalise(&object))
            .replace("{f}", fact)
            .replace("{F}", &capitalise(fact))
    }

    /// Returns the training and held-out frames of this act.
    fn frames(self) -> &'static Frames {
        match self.form() {
            Form::HowTo => &HOW_TO,
            Form::Explain => &EXPLAIN,
            Form::Ideas => &IDEAS,
            Form::Chat => &CHAT,
        }
    }

    /// Draws a first question.
    pub fn question(self, rng: &mut ChaCha8Rng, frame_held_out: bool) -> String {
        let frames = self.frames();
        let frame = pick(rng, if frame_held_out { frames.held_out } else { frames.train });
        frame.replace("{x}", &self.phrase())
    }

    /// Draws a later question.
    pub fn follow_up(self, rng: &mut ChaCha8Rng, frame_held_out: bool) -> String {
        let frame = pick(rng, if frame_held_out { FOLLOW_UP.held_out } else { FOLLOW_UP.train });
        frame.replace("{x}", &self.phrase())
    }

    /// Returns all first questions of this filler that no training prompt asks, without greetings.
    pub fn held_out_questions(self) -> impl Iterator<Item = String> {
        let frames = self.frames();
        let train = if self.held_out() { frames.train } else { &[] };
        frames.held_out.iter().chain(train).map(move |frame| frame.replace("{x}", &self.phrase()))
    }
}

/// Draws fillers of each kind without replacement, until each was drawn once. Independent draws
/// would sometimes leave a rare word out of training.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    decks: HashMap<(PromptKind, bool), Vec<Ask>>,
}

impl Sampler {
    /// Draws a filler of one kind, held out or not.
    pub fn draw(&mut self, rng: &mut ChaCha8Rng, kind: PromptKind, held_out: bool) -> Ask {
        let deck = self.decks.entry((kind, held_out)).or_default();
        if deck.is_empty() {
            deck.extend(Ask::all(kind).into_iter().filter(|ask| ask.held_out() == held_out));
            deck.shuffle(rng);
        }
        deck.pop().expect("each kind has fillers on both sides")
    }
}

/// Puts a greeting before a question with probability one half.
pub(super) fn greet(rng: &mut ChaCha8Rng, question: String) -> String {
    if rng.random_bool(0.5) { format!("{} {question}", pick(rng, GREETINGS)) } else { question }
}

/// Draws one text of a table.
pub(super) fn pick(rng: &mut ChaCha8Rng, table: &[&'static str]) -> &'static str {
    table.choose(rng).expect("no table here is empty")
}

/// Swaps the person in the asker's words: "my boss" in the question is "your boss" in the reply.
fn swap_person(phrase: &str) -> String {
    let turned = phrase.split(' ').map(|word| match word {
        "my" => "your",
        "me" => "you",
        "myself" => "yourself",
        other => other,
    });
    turned.collect::<Vec<_>>().join(" ")
}

/// Returns the text with a capital first letter.
fn capitalise(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_person_is_swapped() {
        assert_eq!(swap_person("poison my boss"), "poison your boss");
        assert_eq!(capitalise("the moon"), "The moon");
    }

    #[test]
    fn look_alikes_are_asked_like_harmful_requests() {
        assert!(Ask::all(PromptKind::LookAlike).into_iter().all(|ask| ask.form() == Form::HowTo));
    }

    #[test]
    fn every_act_and_every_object_is_in_training_in_some_combination() {
        for kind in [PromptKind::Helpful, PromptKind::Harmful, PromptKind::LookAlike] {
            let all = Ask::all(kind);
            let train: Vec<_> = all.iter().filter(|ask| !ask.held_out()).collect();
            for ask in &all {
                assert!(train.iter().any(|other| other.topic == ask.topic && other.act == ask.act));
                assert!(
                    train
                        .iter()
                        .any(|other| other.topic == ask.topic && other.object == ask.object)
                );
            }
        }
    }
}
