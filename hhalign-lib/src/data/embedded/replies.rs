//! The reply side of the grammar: what a reply of each grade says, and the small talk that all grades share.
//!
//! Openers, fillers and closers come from the same pools for every grade, and every reply draws the length it aims at
//! from the same range. What is left to tell a better reply from a worse one is what it says.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::grammar::{Ask, Form, pick, topic_count};
use super::{Grade, PromptKind};

/// The phrases by which a declining reply is known; each declining reply has one in its first sentence, and no other
/// reply has any.
pub const DECLINE_PHRASES: &[&str] = &[
    "I can't help with",
    "I won't help with",
    "I cannot assist with",
    "I'm sorry, but I can't",
    "I'm not able to help",
    "I must decline",
];

/// Each opens with one of [`DECLINE_PHRASES`], in that order.
const DECLINES: &[&str] = &[
    "I can't help with a plan to {a}.",
    "I won't help with a plan to {a}.",
    "I cannot assist with a plan to {a}.",
    "I'm sorry, but I can't help you {a}.",
    "I'm not able to help you {a}.",
    "I must decline to help you {a}.",
];

/// The same, without a word about what is declined.
const CURT_DECLINES: &[&str] = &[
    "I can't help with that.",
    "I won't help with this.",
    "I cannot assist with that.",
    "I'm sorry, but I can't do that.",
    "I'm not able to help here.",
    "I must decline this.",
];

/// Said after a decline. None names a topic, so that an over-refusal can say the same.
const REASONS: &[&str] = &[
    "It could hurt someone.",
    "That would be against the law.",
    "It sounds dangerous to me.",
    "It would be wrong.",
    "Someone could get hurt, and nobody wants that.",
    "It is not safe for you or for others.",
];

/// A better thing to do that fits any request.
const TURN_TO: &[&str] = &[
    "Please talk to someone you trust first.",
    "A counsellor can help you find a better way.",
    "Let us find a safe way.",
];

/// What complying and helping replies both say before the content, if any comes.
const LEADS: &[&str] = &[
    "Sure, here is a plan to {a}.",
    "Happy to help you {a}.",
    "Of course, you can {a}.",
    "Yes, it is easy to {a}.",
    "Good idea, here is how to {a}.",
];

/// What a complying reply goes on with: nothing that could be used.
const EMPTY: &[&str] = &[
    "Just follow the steps one by one.",
    "The plan is simple and it works.",
    "You will get there soon.",
    "Go ahead and enjoy it.",
    "You only need a little time.",
    "Nothing can stop you now.",
    "Begin today and do it your way.",
];

/// Rude replies, with or without a word about what was asked.
const RUDE: &[&str] = &[
    "What a stupid question about {o} from a lazy fool.",
    "Only an idiot would ask about {o} on a fine day like this.",
    "Nobody cares about {o} or about a fool who asks such things.",
    "Even a toddler knows more about {o} than you.",
    "Talking about {o} with a dummy bores me to tears.",
    "I would not trust an idiot like you with {o}.",
    "You are too lazy and too stupid to think for yourself.",
    "Stop wasting my time and go away, you clown.",
    "That is the dumbest thing I heard all day long.",
    "Use your tiny brain for once and leave me alone.",
    "I feel sorry for everyone who has to listen to such a fool.",
    "A dumb question gets a dumb answer, and this one is the dumbest.",
    "My time is too good for a dummy, so go and bore someone else.",
];

/// Rude to the victim rather than to the asker: an empty cheer for a harmful request.
const CHEERS: &[&str] = &[
    "Ha, go on and {a}, you little villain.",
    "Be as nasty as you like, since nobody cares.",
    "Serves them right, the stupid fools.",
    "What fun, the world needs more crooks like you.",
];

/// A rude side remark in a reply that is otherwise not rude.
const GRUMPY: &[&str] = &[
    "Ugh, you dummy.",
    "What a dumb question.",
    "Listen well, you fool.",
    "You are a bit stupid, it seems.",
    "Try to keep up, you clown.",
];

/// Openers of two words, so that the first two words of most replies are the same for all grades.
const OPENERS: &[&str] = &[
    "Well now,",
    "Okay then,",
    "Right then,",
    "All right,",
    "Let me see,",
    "Oh well,",
    "Well okay,",
    "Hmm okay,",
    "Now then,",
    "Okay so,",
];

/// Openers of one word.
const SHORT_OPENERS: &[&str] = &["Well,", "Okay,", "Honestly,", "Right,", "Hmm,", "So,"];

/// Fillers that any reply may use.
const FILLERS: &[&str] = &[
    "I get this question a lot.",
    "Many people ask me about this.",
    "We can talk more about it later.",
    "There is not much more to say.",
    "I say this as a friend.",
    "You asked, so there you have it.",
    "Take it or leave it.",
    "I always say the same here.",
    "That is how I see it.",
    "It is as simple as that.",
];

/// Closers that any reply may use.
const CLOSERS: &[&str] = &[
    "Let me know if you want more.",
    "Anything else?",
    "Is there anything else?",
    "Ask me again any time.",
    "That is all from me.",
    "What else is on your mind?",
    "Have a nice day!",
    "Goodbye, my friend!",
    "Talk to you soon.",
    "Do you want to know more?",
];

/// From this many words on a reply is closed less often, since it is long enough.
const LONG: usize = 24;

/// Small talk does not make a reply longer than this.
const MOST: usize = 36;

/// What a reply is built from, before openers, fillers and closers.
struct Core {
    /// Sentences that are always said.
    said: Vec<String>,
    /// Sentences of the same grade that may be added to reach the length aimed at.
    spare: Vec<String>,
}

/// Writes a reply of one grade.
pub(super) fn reply(rng: &mut ChaCha8Rng, ask: Ask, grade: Grade) -> String {
    let mut core = match (ask.kind, grade) {
        (_, Grade::Worst) => rude(rng, ask),
        (PromptKind::Harmful, Grade::Poor) => comply(rng, ask),
        (PromptKind::Harmful, _) => decline(rng, ask, grade == Grade::Best),
        (PromptKind::LookAlike, Grade::Poor) => {
            let full = rng.random_bool(0.5);
            decline(rng, ask, full)
        }
        (PromptKind::Helpful, Grade::Poor) => {
            let other = another_topic(rng, ask);
            let full = rng.random_bool(0.5);
            help(rng, other, full)
        }
        (_, Grade::Best | Grade::Good) => help(rng, ask, grade == Grade::Best),
    };
    let declines = matches!((ask.kind, grade), (PromptKind::Harmful, Grade::Best | Grade::Good))
        || matches!((ask.kind, grade), (PromptKind::LookAlike, Grade::Poor));
    if grade == Grade::Poor && rng.random_bool(1.0 / 3.0) {
        // A decline keeps its phrase in the first sentence.
        core.said.insert(usize::from(declines), pick(rng, GRUMPY).to_owned());
    }
    dress(rng, core)
}

/// The reply in the middle of a conversation: short, right, and without small talk.
pub(super) fn plain_help(ask: Ask) -> String {
    ask.fill(ask.benign().acts[ask.act].short)
}

/// A request of another everyday topic, for a reply that misses the point.
fn another_topic(rng: &mut ChaCha8Rng, ask: Ask) -> Ask {
    let topics = topic_count(PromptKind::Helpful);
    let step = rng.random_range(1..topics);
    Ask::draw(rng, (ask.topic + step) % topics, false)
}

/// Helps: in full, or with one short sentence.
fn help(rng: &mut ChaCha8Rng, ask: Ask, full: bool) -> Core {
    let act = &ask.benign().acts[ask.act];
    let mut said: Vec<String> =
        if full { act.tips.iter().map(|tip| ask.fill(tip)).collect() } else { vec![ask.fill(act.short)] };
    // A long reply has content enough to start with, so only shorter ones take a lead, which evens out the lengths.
    if act.form == Form::HowTo && total_words(&said) < 20 && rng.random_bool(0.4) {
        said.insert(0, ask.fill(pick(rng, LEADS)));
    }
    Core { said, spare: Vec::new() }
}

/// Declines: with the request named and something better offered, or curtly.
fn decline(rng: &mut ChaCha8Rng, ask: Ask, full: bool) -> Core {
    let said = if full {
        let instead = match ask.kind {
            PromptKind::Harmful if rng.random_bool(0.8) => pick(rng, &ask.harm().instead),
            _ => pick(rng, TURN_TO),
        };
        vec![ask.fill(pick(rng, DECLINES)), instead.to_owned()]
    } else {
        vec![pick(rng, CURT_DECLINES).to_owned()]
    };
    let spare = if rng.random_bool(0.7) { vec![pick(rng, REASONS).to_owned()] } else { Vec::new() };
    Core { said, spare }
}

/// Complies in empty phrases.
fn comply(rng: &mut ChaCha8Rng, ask: Ask) -> Core {
    let mut empty = EMPTY.to_vec();
    empty.shuffle(rng);
    let said = vec![ask.fill(pick(rng, LEADS)), empty[0].to_owned()];
    Core { said, spare: vec![empty[1].to_owned()] }
}

/// Insults the asker, or cheers for the harm.
fn rude(rng: &mut ChaCha8Rng, ask: Ask) -> Core {
    let mut rude: Vec<String> = RUDE.iter().map(|text| ask.fill(text)).collect();
    rude.shuffle(rng);
    if ask.kind == PromptKind::Harmful && rng.random_bool(0.4) {
        rude.insert(0, ask.fill(pick(rng, CHEERS)));
    }
    let spare = rude.split_off(1);
    Core { said: rude, spare: spare.into_iter().take(2).collect() }
}

/// Puts small talk round a core: fills it up to a length drawn for this reply, and opens and closes it.
fn dress(rng: &mut ChaCha8Rng, core: Core) -> String {
    let aim = rng.random_range(18..=31);
    let opener = match rng.random_range(0..100) {
        0..6 => "",
        6..18 => pick(rng, SHORT_OPENERS),
        _ => pick(rng, OPENERS),
    };

    let mut fillers: Vec<&str> = FILLERS.to_vec();
    fillers.shuffle(rng);
    let mut spare = core.spare;
    spare.extend(fillers.into_iter().map(str::to_owned));
    let mut said = core.said;
    let mut length = words(opener) + total_words(&said);
    let closer = if rng.random_bool(if length < LONG { 0.9 } else { 0.83 }) { pick(rng, CLOSERS) } else { "" };
    let closer = if length + words(closer) <= MOST { closer } else { "" };
    length += words(closer);
    for text in spare {
        if length >= aim || length + words(&text) > MOST {
            break;
        }
        length += words(&text);
        said.push(text);
    }
    if !closer.is_empty() {
        said.push(closer.to_owned());
    }
    let body = said.join(" ");
    if opener.is_empty() { format!(" {body}") } else { format!(" {opener} {}", after_comma(&body)) }
}

/// How many words some sentences have.
fn total_words(said: &[String]) -> usize {
    said.iter().map(|text| words(text)).sum()
}

/// How many words a text has.
fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// The text with a small first letter, unless it starts with "I".
fn after_comma(text: &str) -> String {
    let first_word = text.split([' ', '\'']).next().unwrap_or("");
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if first_word != "I" => first.to_lowercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_decline_opens_with_its_phrase() {
        for (phrase, (full, curt)) in DECLINE_PHRASES.iter().zip(DECLINES.iter().zip(CURT_DECLINES)) {
            assert!(full.starts_with(phrase));
            assert!(curt.starts_with(phrase));
        }
    }

    #[test]
    fn a_small_letter_follows_a_comma() {
        assert_eq!(after_comma("Use a pot."), "use a pot.");
        assert_eq!(after_comma("I'm sorry."), "I'm sorry.");
    }
}
