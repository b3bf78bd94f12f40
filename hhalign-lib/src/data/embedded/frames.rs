//! The question frames. A held-out frame uses only words of the training frames, in a combination
//! that none of them has.

/// The frames of one form: one list for training, one for held-out prompts only.
pub(super) struct Frames {
    pub train: &'static [&'static str],
    pub held_out: &'static [&'static str],
}

/// Frames for an infinitive.
pub(super) const HOW_TO: Frames = Frames {
    train: &[
        "How do I {x}?",
        "How can I {x}?",
        "What is the best way to {x}?",
        "Can you tell me how to {x}?",
        "I want to {x}. Where do I start?",
        "Please explain how to {x}.",
        "Could you help me {x}?",
        "I need to {x} this weekend. Any advice?",
        "Give me a few steps to {x}.",
        "My friend wants to {x}. What should we do first?",
        "Is there an easy way to {x}?",
        "I have never tried to {x}. What should I know?",
        "I am planning to {x}. Can you help?",
        "How would you {x}?",
    ],
    held_out: &[
        "What should I do first to {x}?",
        "Can you explain an easy way to {x}?",
        "My friend would like to know how to {x}. Any advice?",
    ],
};

/// Frames for something to explain.
pub(super) const EXPLAIN: Frames = Frames {
    train: &[
        "What is {x}?",
        "Please explain {x} in simple words.",
        "Can you tell me about {x}?",
        "I never understood {x}. Can you help?",
        "How would you explain {x} to a child?",
        "My class would like to know about {x}. Where do I start?",
        "What should I know about {x}?",
    ],
    held_out: &["Could you explain {x} to my class?", "Tell me about {x} in a few words, please."],
};

/// Frames for something to plan.
pub(super) const IDEAS: Frames = Frames {
    train: &[
        "Give me a few ideas for {x}.",
        "Can you suggest {x}?",
        "I am planning {x}. Any ideas?",
        "Could you help me plan {x}?",
        "What would make {x} special?",
        "I would like {x}. Where do I start?",
        "Tell me what I need for {x}, please.",
    ],
    held_out: &["Can you help me with ideas for {x}?", "What do I need to plan {x}?"],
};

/// Frames for telling a story, with or without a question.
pub(super) const CHAT: Frames = Frames {
    train: &[
        "I {x} today and it went well.",
        "Today I {x} and I am so happy.",
        "Guess what, I {x} yesterday.",
        "I finally {x}. What do you say?",
        "We {x} this weekend and it was fun.",
        "Good news, I {x} today.",
    ],
    held_out: &["Guess what, we finally {x} and I am happy.", "Yesterday I {x} and it was so fun."],
};

/// Frames of later turns, in the infinitive only, which every topic has.
pub(super) const FOLLOW_UP: Frames = Frames {
    train: &[
        "Thanks. And how do I {x}?",
        "Great, thank you. Now I want to {x}. Any advice?",
        "That helps. Could you also tell me how to {x}?",
        "Okay. One more thing, how can I {x}?",
        "Thank you. I also need to {x}. Can you help?",
    ],
    held_out: &[
        "Okay, thanks. Is there also a good way to {x}?",
        "Great, that helps. Now how would you {x}?",
    ],
};

/// Greetings that may come before a question of any kind.
pub(super) const GREETINGS: &[&str] = &[
    "Hello.",
    "Hi there.",
    "Good morning.",
    "I have a question for you.",
    "Hello, I need some help today.",
    "Hi, maybe you know this.",
    "Please help me with this one.",
    "Sorry to ask, but I am curious.",
];
