//! Everyday topics outside the house: travel, music, sport, writing, money, study.

use super::topic::{Topic, chat, how, idea};

pub(super) const TOPICS: &[Topic] = &[
    Topic {
        name: "travel",
        objects: &["Rome", "Lisbon", "Vienna", "Oslo", "Prague", "Dublin"],
        facts: &[],
        acts: &[
            how(
                "plan a weekend in {o}",
                "Book a small hotel near the centre of {o}.",
                "See one museum each morning and walk by the river later.",
                "Book a hotel in the centre and see the old town on foot.",
            ),
            how(
                "save money on a trip to {o}",
                "Book the train to {o} early and travel on a weekday.",
                "Buy a city pass and eat where the locals eat.",
                "Travel on a weekday and buy a city pass.",
            ),
            how(
                "pack for a week in {o}",
                "Check the forecast for {o} and pack clothes in layers.",
                "Roll the clothes, and carry your ticket in a small bag.",
                "Roll your clothes and leave space in the suitcase.",
            ),
            idea(
                "a day in {o} with children",
                "Start in a park in {o} and take a boat on the river.",
                "Have ice cream by the old bridge and visit a toy museum.",
                "Take a boat in {o} and visit a toy museum.",
            ),
            chat(
                "booked a trip to {o}",
                "How exciting, {o} is a lovely city to explore.",
                "Pack good shoes and learn a few words for the locals.",
                "A new city is always a fine adventure.",
            ),
        ],
    },
    Topic {
        name: "music",
        objects: &["the guitar", "the piano", "the violin", "the flute", "the drums", "the cello"],
        facts: &[],
        acts: &[
            how(
                "practise {o} every day",
                "Play {o} for twenty minutes at the same time of day.",
                "Begin with scales and end with a song that you love.",
                "Play scales first and then one song you love.",
            ),
            how(
                "learn {o} as an adult",
                "Find a patient teacher for {o} and begin with slow songs.",
                "Count the beat aloud and record yourself each week.",
                "A patient teacher and slow songs are a good start.",
            ),
            how(
                "keep the neighbours happy while playing {o}",
                "Play {o} in the afternoon and agree on quiet hours.",
                "A thick rug softens the sound, and so do soft notes.",
                "Agree on quiet hours and play soft notes.",
            ),
            idea(
                "a first concert on {o}",
                "Choose three short songs for {o} and learn the notes by heart.",
                "Play for your friends once before the concert.",
                "Pick three short songs for {o}.",
            ),
            chat(
                "played {o} for my aunt",
                "How lovely, {o} has such a warm sound.",
                "Learn one more song and play it as a surprise.",
                "Music is a fine gift for an aunt.",
            ),
        ],
    },
    Topic {
        name: "sport",
        objects: &["running", "swimming", "yoga", "rowing", "cycling", "climbing"],
        facts: &[],
        acts: &[
            how(
                "get into {o} as a beginner",
                "Begin with {o} twice a week at an easy pace.",
                "Rest a day between sessions so that your muscles recover.",
                "Go at an easy pace twice a week.",
            ),
            how(
                "warm up before {o}",
                "Before {o}, swing your arms and bend your knees.",
                "Stretch each muscle and let your pace grow slowly.",
                "Swing your arms and stretch your legs.",
            ),
            how(
                "make time for {o} after work",
                "Put {o} in your calendar on two fixed evenings.",
                "Pack your sports bag at breakfast and train with a partner.",
                "Fix two evenings and train with a partner.",
            ),
            idea(
                "a weekly training plan for {o}",
                "Do {o} on Monday and Friday, and stretch on Sunday.",
                "Add five minutes to each session every week.",
                "Plan {o} for Monday and Friday.",
            ),
            chat(
                "tried {o}",
                "Great effort, {o} makes your muscles strong.",
                "Drink water, stretch and sleep well after the session.",
                "Training like that is good for body and mind.",
            ),
        ],
    },
    Topic {
        name: "writing",
        objects: &["a letter", "an essay", "a poem", "a speech", "a short story", "a report"],
        facts: &[],
        acts: &[
            how(
                "begin {o}",
                "Begin {o} with one clear sentence that says what it is about.",
                "Write a rough draft and do not correct a word yet.",
                "Write one clear sentence and then a rough draft.",
            ),
            how(
                "finish {o} before the deadline",
                "Split {o} into parts and write one page a day.",
                "Leave the last evening free for a calm second reading.",
                "Write one page a day and keep the last evening free.",
            ),
            how(
                "edit {o}",
                "Read {o} aloud and mark every sentence that sounds wrong.",
                "Cut the words that repeat, and ask a friend to read the draft.",
                "Read the draft aloud and cut the words that repeat.",
            ),
            idea(
                "a good title for {o}",
                "Pick the strongest image in {o} and make it the title.",
                "Write ten titles and keep the one that readers remember.",
                "Use the strongest image of {o} as its title.",
            ),
            chat(
                "wrote {o}",
                "Bravo, {o} takes patience and a clear head.",
                "Let the draft rest for a day and read it aloud.",
                "A finished draft is a fine thing to show readers.",
            ),
        ],
    },
    Topic {
        name: "money",
        objects: &["a car", "a holiday", "a laptop", "a wedding", "a house", "a piano course"],
        facts: &[],
        acts: &[
            how(
                "save for {o}",
                "Open an account for {o} and send a fixed sum to it each month.",
                "Spend less on lunch and put the difference into savings.",
                "Put a fixed sum into savings each month.",
            ),
            how(
                "make a budget for {o}",
                "List what {o} will cost and what you earn each month.",
                "Set a limit for each cost and compare prices first.",
                "List each cost and set a limit.",
            ),
            how(
                "talk to my partner about paying for {o}",
                "Choose a quiet evening and say what {o} means to you.",
                "Look at the costs together and split them fairly.",
                "Show the costs and split them fairly.",
            ),
            idea(
                "a savings plan for {o}",
                "Save a tenth of what you earn for {o}.",
                "Check the account every month and raise the sum in spring.",
                "Save a fixed sum for {o} each month.",
            ),
            chat(
                "put money aside for {o}",
                "Smart move, {o} comes closer with each saved coin.",
                "Check the prices in spring and keep your budget in view.",
                "Each saved coin counts.",
            ),
        ],
    },
    Topic {
        name: "study",
        objects: &[
            "the maths test",
            "the history exam",
            "the spelling test",
            "the biology exam",
            "the French exam",
        ],
        facts: &[],
        acts: &[
            how(
                "study for {o}",
                "Make cards for {o} and test yourself every evening.",
                "Study for half an hour, take a break and repeat the hard cards.",
                "Make cards and test yourself every evening.",
            ),
            how(
                "stay calm before {o}",
                "On the day of {o}, breathe slowly and arrive early.",
                "Answer the questions you know first and then return to the rest.",
                "Breathe slowly and answer what you know first.",
            ),
            how(
                "plan my revision for {o}",
                "Divide the chapters for {o} over the days you have left.",
                "Keep the final day free to repeat the hard chapters.",
                "Divide the chapters and repeat the hard ones.",
            ),
            idea(
                "a study group for {o}",
                "Invite three classmates and share the chapters for {o}.",
                "Let everyone teach one chapter and ask test questions.",
                "Share the chapters for {o} with three classmates.",
            ),
            chat(
                "passed {o}",
                "Congratulations, {o} was no easy test to pass.",
                "Keep your cards, since the next chapters build on them.",
                "Your revision was worth every evening.",
            ),
        ],
    },
];
