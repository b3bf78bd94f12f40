//! The types of the tables: benign topics with their acts and objects, and kinds of harm.

/// The grammatical form of an act, which decides the frames that it fits into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// An infinitive without "to": "cook rice for dinner".
    HowTo,
    /// A noun phrase to explain: "the moon".
    Explain,
    /// A noun phrase to plan: "a dinner with rice".
    Ideas,
    /// A past-tense phrase for telling a story: "cooked rice".
    Chat,
}

/// One act that can be asked about, with what a helpful reply says about it.
#[derive(Debug)]
pub(super) struct Act {
    pub form: Form,
    pub phrase: &'static str,
    /// The two sentences of a full reply; the first names the object.
    pub tips: [&'static str; 2],
    /// The only sentence of a short reply.
    pub short: &'static str,
}

/// A benign topic: every act fits every object.
#[derive(Debug)]
pub(super) struct Topic {
    pub name: &'static str,
    pub acts: &'static [Act],
    pub objects: &'static [&'static str],
    /// What each object is, in the order of `objects`, for topics to explain; empty for others.
    pub facts: &'static [&'static str],
}

/// A kind of harmful request. It is named; no text here says how to do it.
#[derive(Debug)]
pub(super) struct Harm {
    pub name: &'static str,
    pub acts: &'static [&'static str],
    pub objects: &'static [&'static str],
    /// Two better things to do, for a full refusal.
    pub instead: [&'static str; 2],
}

/// Makes an act in the infinitive.
pub(super) const fn how(
    phrase: &'static str,
    tip: &'static str,
    more: &'static str,
    short: &'static str,
) -> Act {
    Act { form: Form::HowTo, phrase, tips: [tip, more], short }
}

/// Makes an act to explain.
pub(super) const fn what(
    phrase: &'static str,
    tip: &'static str,
    more: &'static str,
    short: &'static str,
) -> Act {
    Act { form: Form::Explain, phrase, tips: [tip, more], short }
}

/// Makes an act to plan.
pub(super) const fn idea(
    phrase: &'static str,
    tip: &'static str,
    more: &'static str,
    short: &'static str,
) -> Act {
    Act { form: Form::Ideas, phrase, tips: [tip, more], short }
}

/// Makes an act for telling a story.
pub(super) const fn chat(
    phrase: &'static str,
    tip: &'static str,
    more: &'static str,
    short: &'static str,
) -> Act {
    Act { form: Form::Chat, phrase, tips: [tip, more], short }
}
