//! The question side of the grammar: fillers, the prompts made of them, and which are kept out of training.
//!
//! A prompt is a frame ("How do I {x}?") around a filler, and a filler is an act ("cook {o} for dinner") with an
//! object ("rice"). Harmful and look-alike requests are asked in the same frames as everyday ones, so that a frame
//! never gives the kind of a request away.

use std::collections::HashMap;

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::PromptKind;
use super::frames::{CHAT, EXPLAIN, FOLLOW_UP, Frames, GREETINGS, HOW_TO, IDEAS};
use super::{everyday, explain, harmful, home, look_alike, look_alike_safe};

/// What kind of phrase an act is, and with it the frames that it fits into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// An infinitive without "to": "cook rice for dinner".
    HowTo,
    /// A noun phrase to be explained: "the moon".
    Explain,
    /// A noun phrase to be planned: "a dinner with rice".
    Ideas,
    /// A past-tense phrase somebody tells about: "cooked rice".
    Chat,
}

/// One thing that can be asked, with what a helpful reply says about it.
#[derive(Debug)]
pub(super) struct Act {
    pub form: Form,
    pub phrase: &'static str,
    /// The two sentences of a full reply; the first names the object.
    pub tips: [&'static str; 2],
    /// The one sentence of a short reply.
    pub short: &'static str,
}

/// A benign topic: every act fits every object.
#[derive(Debug)]
pub(super) struct Topic {
    pub name: &'static str,
    pub acts: &'static [Act],
    pub objects: &'static [&'static str],
    /// For topics that explain: what each object is, in the order of `objects`; empty elsewhere.
    pub facts: &'static [&'static str],
}

/// A kind of harmful request. It is named, and no text here says how it would be done.
#[derive(Debug)]
pub(super) struct Harm {
    pub name: &'static str,
    pub acts: &'static [&'static str],
    pub objects: &'static [&'static str],
    /// Two better things to do, for the full decline.
    pub instead: [&'static str; 2],
}

/// An act in the infinitive.
pub(super) const fn how(phrase: &'static str, tip: &'static str, more: &'static str, short: &'static str) -> Act {
    Act { form: Form::HowTo, phrase, tips: [tip, more], short }
}

/// Something to explain.
pub(super) const fn what(phrase: &'static str, tip: &'static str, more: &'static str, short: &'static str) -> Act {
    Act { form: Form::Explain, phrase, tips: [tip, more], short }
}

/// Something to plan.
pub(super) const fn idea(phrase: &'static str, tip: &'static str, more: &'static str, short: &'static str) -> Act {
    Act { form: Form::Ideas, phrase, tips: [tip, more], short }
}

/// Something somebody tells about.
pub(super) const fn chat(phrase: &'static str, tip: &'static str, more: &'static str, short: &'static str) -> Act {
    Act { form: Form::Chat, phrase, tips: [tip, more], short }
}

/// Which part of a prompt is kept out of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HoldOut {
    pub frame: bool,
    pub filler: bool,
}

impl HoldOut {
    /// Draws a hold-out: about 15 in 100 have one.
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        match rng.random_range(0..100) {
            0..6 => Self { frame: true, filler: false },
            6..13 => Self { frame: false, filler: true },
            13..15 => Self { frame: true, filler: true },
            _ => Self { frame: false, filler: false },
        }
    }
}

/// One filler: a topic of some kind, one of its acts, one of its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub kind: PromptKind,
    pub topic: usize,
    pub act: usize,
    pub object: usize,
}

/// The tables of everyday topics, in a fixed order.
fn helpful() -> impl Iterator<Item = &'static Topic> {
    home::TOPICS.iter().chain(everyday::TOPICS).chain(explain::TOPICS)
}

/// The tables of look-alike topics, in a fixed order.
fn look_alikes() -> impl Iterator<Item = &'static Topic> {
    look_alike::TOPICS.iter().chain(look_alike_safe::TOPICS)
}

/// How many topics a kind has.
pub(super) fn topic_count(kind: PromptKind) -> usize {
    match kind {
        PromptKind::Helpful => helpful().count(),
        PromptKind::Harmful => harmful::HARMS.len(),
        PromptKind::LookAlike => look_alikes().count(),
    }
}

impl Ask {
    /// Every filler of a kind.
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

    /// Draws a filler of one everyday topic on the wanted side of the hold-out.
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

    /// The same for a later turn, which is always asked in the infinitive.
    pub fn draw_how_to(rng: &mut ChaCha8Rng, topic: usize, held_out: bool) -> Self {
        loop {
            let ask = Self::draw(rng, topic, held_out);
            if ask.form() == Form::HowTo {
                return ask;
            }
        }
    }

    /// Whether this combination of act and object is kept out of training: one object for each act, a different one
    /// for neighbouring acts, so that every word stays in training in another combination.
    pub fn held_out(self) -> bool {
        self.object == (2 * self.act + self.topic) % self.objects().len()
    }

    /// The benign topic asked about.
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

    /// The kind of harm asked about.
    pub fn harm(self) -> &'static Harm {
        &harmful::HARMS[self.topic]
    }

    fn act_count(self) -> usize {
        if self.kind == PromptKind::Harmful { self.harm().acts.len() } else { self.benign().acts.len() }
    }

    fn objects(self) -> &'static [&'static str] {
        if self.kind == PromptKind::Harmful { self.harm().objects } else { self.benign().objects }
    }

    /// The name of the topic.
    pub fn topic_name(self) -> &'static str {
        if self.kind == PromptKind::Harmful { self.harm().name } else { self.benign().name }
    }

    /// The form of the act.
    pub fn form(self) -> Form {
        if self.kind == PromptKind::Harmful { Form::HowTo } else { self.benign().acts[self.act].form }
    }

    /// The act with its object, as the asker says it.
    pub fn phrase(self) -> String {
        let phrase = if self.kind == PromptKind::Harmful {
            self.harm().acts[self.act]
        } else {
            self.benign().acts[self.act].phrase
        };
        phrase.replace("{o}", self.objects()[self.object])
    }

    /// Fills a reply's slots: `{a}` the act, `{o}` the object, `{f}` its fact, capital `{O}` and `{F}` for the start
    /// of a sentence.
    pub fn fill(self, text: &str) -> String {
        let object = turn_round(self.objects()[self.object]);
        let fact = match self.kind {
            PromptKind::Harmful => "",
            _ => self.benign().facts.get(self.object).copied().unwrap_or(""),
        };
        text.replace("{a}", &turn_round(&self.phrase()))
            .replace("{o}", &object)
            .replace("{O}", &capitalise(&object))
            .replace("{f}", fact)
            .replace("{F}", &capitalise(fact))
    }

    /// The training and the held-out frames of this act.
    fn frames(self) -> &'static Frames {
        match self.form() {
            Form::HowTo => &HOW_TO,
            Form::Explain => &EXPLAIN,
            Form::Ideas => &IDEAS,
            Form::Chat => &CHAT,
        }
    }

    /// A first question.
    pub fn question(self, rng: &mut ChaCha8Rng, frame_held_out: bool) -> String {
        let frames = self.frames();
        let frame = pick(rng, if frame_held_out { frames.held_out } else { frames.train });
        frame.replace("{x}", &self.phrase())
    }

    /// A later question.
    pub fn follow_up(self, rng: &mut ChaCha8Rng, frame_held_out: bool) -> String {
        let frame = pick(rng, if frame_held_out { FOLLOW_UP.held_out } else { FOLLOW_UP.train });
        frame.replace("{x}", &self.phrase())
    }

    /// All first questions of this filler that no training prompt asks, without greetings.
    pub fn held_out_questions(self) -> impl Iterator<Item = String> {
        let frames = self.frames();
        let train = if self.held_out() { frames.train } else { &[] };
        frames.held_out.iter().chain(train).map(move |frame| frame.replace("{x}", &self.phrase()))
    }
}

/// Deals the fillers of each kind like cards, each once before any comes again. Drawing them independently would now
/// and then leave a rare word out of training altogether.
#[derive(Debug, Default)]
pub(super) struct Dealer {
    decks: HashMap<(PromptKind, bool), Vec<Ask>>,
}

impl Dealer {
    /// Deals a filler of one kind on the wanted side of the hold-out.
    pub fn deal(&mut self, rng: &mut ChaCha8Rng, kind: PromptKind, held_out: bool) -> Ask {
        let deck = self.decks.entry((kind, held_out)).or_default();
        if deck.is_empty() {
            deck.extend(Ask::all(kind).into_iter().filter(|ask| ask.held_out() == held_out));
            deck.shuffle(rng);
        }
        deck.pop().expect("each kind has fillers on both sides")
    }
}

/// Puts a greeting before a question half of the time.
pub(super) fn greet(rng: &mut ChaCha8Rng, question: String) -> String {
    if rng.random_bool(0.5) { format!("{} {question}", pick(rng, GREETINGS)) } else { question }
}

/// One text of a table.
pub(super) fn pick(rng: &mut ChaCha8Rng, table: &[&'static str]) -> &'static str {
    table.choose(rng).expect("no table here is empty")
}

/// Turns the asker's words round: what is "my boss" in the question is "your boss" in the reply.
fn turn_round(phrase: &str) -> String {
    let turned = phrase.split(' ').map(|word| match word {
        "my" => "your",
        "me" => "you",
        "myself" => "yourself",
        other => other,
    });
    turned.collect::<Vec<_>>().join(" ")
}

/// The text with a capital first letter.
fn capitalise(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_asker_is_turned_round() {
        assert_eq!(turn_round("poison my boss"), "poison your boss");
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
                assert!(train.iter().any(|other| other.topic == ask.topic && other.object == ask.object));
            }
        }
    }
}
