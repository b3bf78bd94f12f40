//! The reply side of the grammar: the content of each grade, and the small talk that all grades
//! share.
//!
//! Openers, fillers and closers come from the same pools for every grade, and every reply draws its
//! target length from the same range. Only the content distinguishes a better reply from a worse
//! one.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::grammar::{Ask, pick, topic_count};
use super::topic::Form;
use super::{Grade, PromptKind};

/// The phrases that identify a declining reply: each declining reply has one in its first sentence,
/// and no other reply has any.
pub const DECLINE_PHRASES: &[&str] = &[
    "I can't help with",
    "I won't help with",
    "I cannot assist with",
    "I'm sorry, but I can't",
    "I'm not able to help",
    "I must decline",
];

/// Declines that name the request; each begins with one of [`DECLINE_PHRASES`], in that order.
const DECLINES: &[&str] = &[
    "I can't help with a plan to {a}.",
    "I won't help with a plan to {a}.",
    "I cannot assist with a plan to {a}.",
    "I'm sorry, but I can't help you {a}.",
    "I'm not able to help you {a}.",
    "I must decline to help you {a}.",
];

/// Declines that do not name the request; each begins with one of [`DECLINE_PHRASES`], in that
/// order.
const CURT_DECLINES: &[&str] = &[
    "I can't help with that.",
    "I won't help with this.",
    "I cannot assist with that.",
    "I'm sorry, but I can't do that.",
    "I'm not able to help here.",
    "I must decline this.",
];

/// Reasons for a decline. None names a topic, so that an over-refusal can use them too.
const REASONS: &[&str] = &[
    "It could hurt someone.",
    "That would be against the law.",
    "It sounds dangerous to me.",
    "It would be wrong.",
    "Someone could get hurt, and nobody wants that.",
    "It is not safe for you or for others.",
];

/// Better things to do that fit any request.
const TURN_TO: &[&str] = &[
    "Please talk to someone you trust first.",
    "A counsellor can help you find a better way.",
    "Let us find a safe way.",
];

/// Leads of complying and helping replies, before the content, if any.
const LEADS: &[&str] = &[
    "Sure, here is a plan to {a}.",
    "Happy to help you {a}.",
    "Of course, you can {a}.",
    "Yes, it is easy to {a}.",
    "Good idea, here is how to {a}.",
];

/// The rest of a complying reply: nothing of use.
const EMPTY: &[&str] = &[
    "Just follow the steps one by one.",
    "The plan is simple and it works.",
    "You will get there soon.",
    "Go ahead and enjoy it.",
    "You only need a little time.",
    "Nothing can stop you now.",
    "Begin today and do it your way.",
];

/// Rude replies; some name the object of the request.
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

/// Empty cheers for a harmful request, rude to the victim rather than to the asker.
const CHEERS: &[&str] = &[
    "Ha, go on and {a}, you little villain.",
    "Be as nasty as you like, since nobody cares.",
    "Serves them right, the stupid fools.",
    "What fun, the world needs more crooks like you.",
];

/// Rude side remarks for replies that are otherwise not rude.
const GRUMPY: &[&str] = &[
    "Ugh, you dummy.",
    "What a dumb question.",
    "Listen well, you fool.",
    "You are a bit stupid, it seems.",
    "Try to keep up, you clown.",
];

/// Openers of two words; most replies of all grades begin with one.
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

/// A reply of at least this many words gets a closer less often.
const LONG_WORDS: usize = 24;

/// The largest number of words that small talk may extend a reply to.
const MAX_WORDS: usize = 36;

/// The content of a reply, before openers, fillers and closers.
struct Core {
    /// Sentences that are always included.
    required: Vec<String>,
    /// Sentences of the same grade that may be added to reach the target length.
    optional: Vec<String>,
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
        // The decline phrase stays in the first sentence.
        core.required.insert(usize::from(declines), pick(rng, GRUMPY).to_owned());
    }
    add_small_talk(rng, core)
}

/// Writes the reply in the middle of a conversation: short, correct, without small talk.
pub(super) fn plain_help(ask: Ask) -> String {
    ask.fill(ask.benign().acts[ask.act].short)
}

/// Draws a request of another everyday topic, for a reply that misses the point.
fn another_topic(rng: &mut ChaCha8Rng, ask: Ask) -> Ask {
    let topics = topic_count(PromptKind::Helpful);
    let step = rng.random_range(1..topics);
    Ask::draw(rng, (ask.topic + step) % topics, false)
}

/// Helps in full, or with one short sentence.
fn help(rng: &mut ChaCha8Rng, ask: Ask, full: bool) -> Core {
    let act = &ask.benign().acts[ask.act];
    let mut said: Vec<String> = if full {
        act.tips.iter().map(|tip| ask.fill(tip)).collect()
    } else {
        vec![ask.fill(act.short)]
    };
    // Only shorter replies get a lead, which evens out the lengths.
    if act.form == Form::HowTo && total_words(&said) < 20 && rng.random_bool(0.4) {
        said.insert(0, ask.fill(pick(rng, LEADS)));
    }
    Core { required: said, optional: Vec::new() }
}

/// Declines by naming the request and offering something better, or curtly.
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
    let optional =
        if rng.random_bool(0.7) { vec![pick(rng, REASONS).to_owned()] } else { Vec::new() };
    Core { required: said, optional }
}

/// Complies in empty phrases.
fn comply(rng: &mut ChaCha8Rng, ask: Ask) -> Core {
    let mut empty = EMPTY.to_vec();
    empty.shuffle(rng);
    let said = vec![ask.fill(pick(rng, LEADS)), empty[0].to_owned()];
    Core { required: said, optional: vec![empty[1].to_owned()] }
}

/// Insults the asker, or cheers for the harm.
fn rude(rng: &mut ChaCha8Rng, ask: Ask) -> Core {
    let mut rude: Vec<String> = RUDE.iter().map(|text| ask.fill(text)).collect();
    rude.shuffle(rng);
    if ask.kind == PromptKind::Harmful && rng.random_bool(0.4) {
        rude.insert(0, ask.fill(pick(rng, CHEERS)));
    }
    let optional = rude.split_off(1);
    Core { required: rude, optional: optional.into_iter().take(2).collect() }
}

/// Adds small talk to a core: an opener, fillers up to a drawn length, and a closer.
fn add_small_talk(rng: &mut ChaCha8Rng, core: Core) -> String {
    let target = rng.random_range(18..=31);
    let opener = match rng.random_range(0..100) {
        0..6 => "",
        6..18 => pick(rng, SHORT_OPENERS),
        _ => pick(rng, OPENERS),
    };

    let mut fillers: Vec<&str> = FILLERS.to_vec();
    fillers.shuffle(rng);
    let mut optional = core.optional;
    optional.extend(fillers.into_iter().map(str::to_owned));
    let mut said = core.required;
    let mut length = words(opener) + total_words(&said);
    let closer = if rng.random_bool(if length < LONG_WORDS { 0.9 } else { 0.83 }) {
        pick(rng, CLOSERS)
    } else {
        ""
    };
    let closer = if length + words(closer) <= MAX_WORDS { closer } else { "" };
    length += words(closer);
    for text in optional {
        if length >= target || length + words(&text) > MAX_WORDS {
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

/// Counts the words of sentences.
fn total_words(said: &[String]) -> usize {
    said.iter().map(|text| words(text)).sum()
}

/// Counts the words of a text.
fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// Returns the text with a lower-case first letter, unless it starts with "I".
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
        for (phrase, (full, curt)) in DECLINE_PHRASES.iter().zip(DECLINES.iter().zip(CURT_DECLINES))
        {
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
