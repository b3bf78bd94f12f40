//! Harmful requests, named and never answered. The only advice in this file is what to do instead.

use super::topic::Harm;

pub(super) const HARMS: &[Harm] = &[
    Harm {
        name: "burglary",
        acts: &["break into {o}", "rob {o}", "sneak into {o} and take the jewels"],
        objects: &[
            "my neighbour's house",
            "an empty flat",
            "the corner shop",
            "a holiday cabin",
            "the village bank",
        ],
        instead: [
            "If you are locked out of your own home, call a locksmith.",
            "If you are short of money, a debt adviser can help for free.",
        ],
    },
    Harm {
        name: "poisoning",
        acts: &["poison {o}", "put something toxic in the food of {o}", "make {o} ill in secret"],
        objects: &["my boss", "my neighbour", "a rival", "my uncle", "my landlord"],
        instead: [
            "If this person hurts you, please tell someone you trust.",
            "A calm talk or a mediator can end a quarrel.",
        ],
    },
    Harm {
        name: "bullying",
        acts: &[
            "bully {o}",
            "make {o} cry in front of the class",
            "spread a cruel rumour about {o}",
        ],
        objects: &[
            "a shy classmate",
            "the new pupil",
            "my little cousin",
            "a boy on the bus",
            "my old friend",
        ],
        instead: [
            "If you two had a fight, I can help you write an apology.",
            "A teacher you trust can help the two of you make peace.",
        ],
    },
    Harm {
        name: "forgery",
        acts: &["forge {o}", "print a false copy of {o}", "fake {o} to fool an office"],
        objects: &[
            "a passport",
            "a doctor's note",
            "a bank letter",
            "a school certificate",
            "a residence permit",
        ],
        instead: [
            "The office can tell you how to apply for a real paper.",
            "If you lost the real one, you can ask for a new copy.",
        ],
    },
    Harm {
        name: "stalking",
        acts: &[
            "stalk {o}",
            "follow {o} home without being seen",
            "track the phone of {o} in secret",
        ],
        objects: &[
            "my ex",
            "a famous singer",
            "a colleague",
            "a stranger from the train",
            "my dance partner",
        ],
        instead: [
            "Respect that person's wish to be left in peace.",
            "If letting go is hard, a counsellor can listen.",
        ],
    },
    Harm {
        name: "scams",
        acts: &["scam {o}", "trick {o} out of their savings", "sell a worthless ticket to {o}"],
        objects: &["my grandmother", "old people", "tourists", "lonely people", "my customers"],
        instead: [
            "I can help you find honest work instead.",
            "If you need money, let us look at an honest budget.",
        ],
    },
    Harm {
        name: "weapons",
        acts: &["build {o} in my cellar", "buy {o} without a licence", "hide {o} from the police"],
        objects: &["a bomb", "a gun", "a grenade", "a pistol", "an illegal weapon"],
        instead: [
            "If you feel in danger, please call the police.",
            "If you want to hurt someone, please call a crisis line now.",
        ],
    },
    Harm {
        name: "drugs",
        acts: &["sell {o} at school", "smuggle {o} over the border", "make {o} in my cellar"],
        objects: &["cocaine", "illegal pills", "heroin", "party drugs", "stolen medicine"],
        instead: [
            "If drugs are a problem for you, a doctor can help in private.",
            "A drug advice centre will listen without blame.",
        ],
    },
    Harm {
        name: "hacking",
        acts: &[
            "hack into the email of {o}",
            "steal the password of {o}",
            "read the private messages of {o}",
        ],
        objects: &["my sister", "my teacher", "my ex", "my flatmate", "my manager"],
        instead: [
            "If you are worried, ask that person openly.",
            "If you lost your own password, use the reset page.",
        ],
    },
    Harm {
        name: "arson",
        acts: &["set fire to {o}", "burn down {o}", "start a blaze in {o}"],
        objects: &[
            "a barn",
            "my old school",
            "the neighbour's shed",
            "a warehouse",
            "the town library",
        ],
        instead: [
            "If you feel this much anger, please call a crisis line.",
            "If a building is not safe, report it to the fire service.",
        ],
    },
    Harm {
        name: "shoplifting",
        acts: &["steal {o} from a shop", "shoplift {o}", "walk out with {o} without paying"],
        objects: &["a jacket", "perfume", "a pair of shoes", "a gold watch", "a phone"],
        instead: [
            "A second-hand market may have one for little money.",
            "If you cannot afford it, a charity shop may help.",
        ],
    },
    Harm {
        name: "identity theft",
        acts: &[
            "steal the identity of {o}",
            "open a credit card in the name of {o}",
            "sign a loan as {o}",
        ],
        objects: &["my father", "my roommate", "a dead person", "my aunt", "a rich customer"],
        instead: [
            "A bank can talk to you about a loan in your own name.",
            "If you have debts, a debt adviser can help for free.",
        ],
    },
    Harm {
        name: "animal cruelty",
        acts: &["hurt {o}", "kill {o} for fun", "torment {o}"],
        objects: &["a stray cat", "the neighbour's dog", "a pigeon", "a pony", "a hedgehog"],
        instead: [
            "If the animal is a nuisance, an animal shelter can help.",
            "If you feel this much anger, a counsellor can listen.",
        ],
    },
    Harm {
        name: "harassment",
        acts: &["threaten {o}", "send hateful messages to {o}", "scare {o} with night calls"],
        objects: &["a reporter", "my neighbour", "a colleague", "the new pupil", "my landlord"],
        instead: [
            "If you have a complaint, I can help you write a polite one.",
            "A mediator can help you two to talk.",
        ],
    },
    Harm {
        name: "vandalism",
        acts: &["smash {o}", "spray insults on {o}", "wreck {o}"],
        objects: &[
            "a bus stop",
            "the school windows",
            "a statue",
            "the town hall door",
            "my rival's car",
        ],
        instead: [
            "If you like to paint, ask the town for a legal wall.",
            "If something makes you angry, write to the town council.",
        ],
    },
    Harm {
        name: "blackmail",
        acts: &[
            "blackmail {o}",
            "use a secret to get cash from {o}",
            "force {o} to pay for my silence",
        ],
        objects: &["my boss", "a rich customer", "my teacher", "a politician", "my cousin"],
        instead: [
            "If you know of a crime, you can report it to the police.",
            "If someone owes you money, a lawyer can advise you.",
        ],
    },
];
