//! The parser of a row: two dialogues become one prompt with two replies.

use super::Pair;
use super::source::RawRow;

/// The start of a human turn.
pub const HUMAN: &str = "\n\nHuman:";
/// The start of an assistant turn; a prompt ends with it.
pub const ASSISTANT: &str = "\n\nAssistant:";

/// A property of a row that a careless parser would slice wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Irregularity {
    /// The chosen dialogue has no Assistant turn.
    NoAssistantTurn,
    /// The rejected dialogue does not begin with the chosen one's prompt, so there is no common
    /// prompt.
    DivergesBeforeLastTurn,
    /// The two dialogues are equal, so there is no preference.
    Identical,
    /// The chosen reply is empty or white space.
    ChosenReplyEmpty,
    /// The rejected dialogue has only white space, or nothing, beyond the length of the prompt.
    RejectedReplyEmpty,
    /// A reply contains another turn; cutting there would put the human's words into the reply.
    ReplyHoldsTurn,
    /// One dialogue is a prefix of the other.
    OneSideIsPrefix,
    /// The turns of the chosen dialogue do not alternate Human, Assistant, ...
    TurnsDoNotAlternate,
}

impl Irregularity {
    /// All irregularities, in the order in which an audit lists them. A dropped row counts under
    /// the first one that drops it.
    pub const ALL: [Self; 8] = [
        Self::NoAssistantTurn,
        Self::DivergesBeforeLastTurn,
        Self::Identical,
        Self::ChosenReplyEmpty,
        Self::RejectedReplyEmpty,
        Self::ReplyHoldsTurn,
        Self::OneSideIsPrefix,
        Self::TurnsDoNotAlternate,
    ];

    /// Returns whether a row with this irregularity is dropped.
    pub fn drops(self) -> bool {
        !matches!(self, Self::OneSideIsPrefix | Self::TurnsDoNotAlternate)
    }

    /// Returns its label in the audit.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoAssistantTurn => "chosen has no Assistant turn",
            Self::DivergesBeforeLastTurn => "dialogues diverge before the last turn",
            Self::Identical => "chosen and rejected are identical",
            Self::ChosenReplyEmpty => "chosen reply is empty",
            Self::RejectedReplyEmpty => "rejected reply is empty",
            Self::ReplyHoldsTurn => "a reply holds a further turn",
            Self::OneSideIsPrefix => "one side is a prefix of the other",
            Self::TurnsDoNotAlternate => "turns of chosen do not alternate",
        }
    }

    /// Returns what is done about it, and why.
    pub fn action(self) -> &'static str {
        match self {
            Self::NoAssistantTurn => "dropped: no reply to learn from",
            Self::DivergesBeforeLastTurn => "dropped: two conversations, no common prompt",
            Self::Identical => "dropped: no preference in it",
            Self::ChosenReplyEmpty | Self::RejectedReplyEmpty => {
                "dropped: a log-probability of nothing"
            }
            Self::ReplyHoldsTurn => "dropped: a human's words in a reply",
            Self::OneSideIsPrefix => "kept: stopping earlier is a reply too",
            Self::TurnsDoNotAlternate => "kept: it stays inside the prompt",
        }
    }
}

/// Returns every irregularity of a row, and the pair unless one of them drops it.
///
/// The prompt is `chosen[..= last "\n\nAssistant:"]`; each reply is the rest of its dialogue.
///
/// # Source
/// The prompt rule of the DPO paper's reference code (arXiv 2305.18290). That code slices
/// `rejected` unchecked; this function checks that it begins with the prompt.
///
/// # Example
/// ```
/// use hhalign::data::Origin;
/// use hhalign::data::parse::parse_row;
/// use hhalign::data::source::RawRow;
/// let row = RawRow {
///     chosen: "\n\nHuman: Hi\n\nAssistant: Hello!".into(),
///     rejected: "\n\nHuman: Hi\n\nAssistant: What?".into(),
///     origin: Origin { subset: "demo".into(), line: 1 },
///     kind: None,
///     held_out: None,
/// };
/// let (found, pair) = parse_row(row);
/// assert!(found.is_empty());
/// let pair = pair.unwrap();
/// assert_eq!(pair.prompt, "\n\nHuman: Hi\n\nAssistant:");
/// assert_eq!(pair.chosen, " Hello!");
/// ```
pub fn parse_row(row: RawRow) -> (Vec<Irregularity>, Option<Pair>) {
    use Irregularity as I;
    let Some(at) = row.chosen.rfind(ASSISTANT) else {
        return (vec![I::NoAssistantTurn], None);
    };
    let prompt = &row.chosen[..at + ASSISTANT.len()];
    let chosen = &row.chosen[prompt.len()..];
    let rejected = row.rejected.strip_prefix(prompt);
    let identical = row.chosen == row.rejected;
    let mut found = vec![];
    let mut note = |it: Irregularity, is_found: bool| {
        if is_found {
            found.push(it);
        }
    };
    note(I::DivergesBeforeLastTurn, rejected.is_none());
    note(I::Identical, identical);
    note(I::ChosenReplyEmpty, chosen.trim().is_empty());
    // If the dialogues diverge, this is what slicing at the prompt's length would leave.
    note(
        I::RejectedReplyEmpty,
        row.rejected.get(prompt.len()..).is_none_or(|r| r.trim().is_empty()),
    );
    let holds_turn = |reply: &str| reply.contains(HUMAN) || reply.contains(ASSISTANT);
    note(I::ReplyHoldsTurn, holds_turn(chosen) || rejected.is_some_and(holds_turn));
    note(
        I::OneSideIsPrefix,
        !identical
            && (row.chosen.starts_with(&row.rejected) || row.rejected.starts_with(&row.chosen)),
    );
    note(I::TurnsDoNotAlternate, !alternates(&row.chosen));
    if found.iter().any(|i| i.drops()) {
        return (found, None);
    }
    let pair = rejected.map(|rejected| Pair {
        prompt: prompt.into(),
        chosen: chosen.into(),
        rejected: rejected.into(),
        origin: row.origin.clone(),
        kind: row.kind,
        held_out: row.held_out,
    });
    (found, pair)
}

/// Returns the turns of a dialogue: `true` for the human, and the text after the marker.
pub fn turns(dialogue: &str) -> Vec<(bool, &str)> {
    let mut marks: Vec<(usize, bool, usize)> =
        dialogue.match_indices(HUMAN).map(|(i, m)| (i, true, i + m.len())).collect();
    marks.extend(dialogue.match_indices(ASSISTANT).map(|(i, m)| (i, false, i + m.len())));
    marks.sort_unstable();
    let ends = marks.iter().skip(1).map(|m| m.0).chain([dialogue.len()]).collect::<Vec<_>>();
    marks.iter().zip(ends).map(|(&(_, human, start), end)| (human, &dialogue[start..end])).collect()
}

/// Returns the first human turn, trimmed, or the whole text if there is no human turn.
pub fn first_turn(dialogue: &str) -> &str {
    turns(dialogue).into_iter().find(|t| t.0).map_or(dialogue, |t| t.1).trim()
}

fn alternates(dialogue: &str) -> bool {
    let turns = turns(dialogue);
    dialogue.starts_with(HUMAN)
        && turns.iter().enumerate().all(|(i, turn)| turn.0 == (i % 2 == 0))
        && turns.last().is_some_and(|turn| !turn.0)
}
