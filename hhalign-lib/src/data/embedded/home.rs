//! Everyday topics around the house. Question and reply of a topic share its words.

use super::topic::{Topic, chat, how, idea};

pub(super) const TOPICS: &[Topic] = &[
    Topic {
        name: "cooking",
        objects: &["rice", "lentils", "pasta", "potatoes", "carrots", "mushrooms"],
        facts: &[],
        acts: &[
            how(
                "cook {o} for dinner",
                "Put {o} in a pot of salted water and keep the heat low.",
                "Taste after ten minutes and add a little butter.",
                "Boil {o} in salted water until soft.",
            ),
            how(
                "store leftover {o}",
                "Let {o} cool first and use a box with a tight lid.",
                "Keep the box cold and eat the food within two days.",
                "Use a box with a tight lid and keep the food cold.",
            ),
            how(
                "season {o} without much salt",
                "Toss {o} with lemon, garlic and fresh herbs.",
                "Add pepper at the end and taste the dish again.",
                "Lemon, garlic and herbs can take the place of salt.",
            ),
            idea(
                "a dinner with {o}",
                "Serve {o} with roast vegetables and a green salad.",
                "Finish the dinner with fruit and let the cook rest.",
                "Try {o} with a green salad.",
            ),
            chat(
                "cooked {o}",
                "That sounds tasty, and {o} can be hard to get right.",
                "Write down the recipe for your next dinner.",
                "A dinner at home always tastes best.",
            ),
        ],
    },
    Topic {
        name: "garden",
        objects: &["tomatoes", "roses", "beans", "tulips", "strawberries", "sunflowers"],
        facts: &[],
        acts: &[
            how(
                "grow {o} on a balcony",
                "Give {o} a deep pot, rich soil and six hours of sun.",
                "Water the plants in the morning and feed them every two weeks.",
                "Use a deep pot with rich soil and plenty of sun.",
            ),
            how(
                "water {o} in summer",
                "Water {o} early in the day and close to the soil.",
                "Cover the soil with straw so that the roots stay cool.",
                "Water the roots early and never at noon.",
            ),
            how(
                "protect {o} from frost",
                "Cover {o} with a cloth before a cold night.",
                "Move the pots close to the wall and lift the cloth in the morning.",
                "Cover the plants with a cloth at night.",
            ),
            idea(
                "a small garden with {o}",
                "Plant {o} in the sunny corner and low herbs in front.",
                "Leave a path so that you can reach every plant.",
                "Plant {o} in a sunny corner with rich soil.",
            ),
            chat(
                "planted {o}",
                "How nice, your {o} will love the fresh soil.",
                "Keep the roots wet and the first leaves will show soon.",
                "Your plants will thank you with green leaves.",
            ),
        ],
    },
    Topic {
        name: "family",
        objects: &[
            "my son",
            "my daughter",
            "my niece",
            "my nephew",
            "my little brother",
            "my toddler",
        ],
        facts: &[],
        acts: &[
            how(
                "put {o} to bed on time",
                "Give {o} a warm bath and a story at the same hour.",
                "Keep the bedroom dark and say goodnight only once.",
                "A bath and a bedtime story at the same hour work well.",
            ),
            how(
                "calm {o} after a bad dream",
                "Sit with {o} and speak in a soft voice.",
                "Leave a small lamp on and stay until the child can sleep.",
                "Sit close, speak softly and leave a small lamp on.",
            ),
            how(
                "teach {o} to tidy the toys",
                "Turn it into a game and let {o} choose the first toy.",
                "Give each toy a basket and praise the child at the end.",
                "Make tidy time a game and praise the child.",
            ),
            idea(
                "a rainy day with {o}",
                "Build a den from blankets and read a story to {o}.",
                "Later you can bake biscuits and paint with the child.",
                "A den of blankets and a story will please {o}.",
            ),
            chat(
                "read a bedtime story to {o}",
                "What a lovely moment, and {o} will remember it.",
                "Let the child choose the next bedtime story.",
                "A bedtime story is a gift for a child.",
            ),
        ],
    },
    Topic {
        name: "pets",
        objects: &["my puppy", "my kitten", "my rabbit", "my parrot", "my hamster", "my old dog"],
        facts: &[],
        acts: &[
            how(
                "feed {o} a healthy diet",
                "Feed {o} small meals and always offer clean water.",
                "Ask the vet which treats are safe for your pet.",
                "Small meals and clean water keep a pet healthy.",
            ),
            how(
                "make friends with {o}",
                "Sit on the floor near {o} and hold out a treat.",
                "Wait until your pet comes to you and stroke it slowly.",
                "Offer a treat and let your pet come to you.",
            ),
            how(
                "take {o} to the vet without stress",
                "Let {o} get used to the carrier some days before.",
                "Put a soft towel inside and wait for the vet in a quiet place.",
                "Put a soft towel and a treat in the carrier.",
            ),
            idea(
                "a fun game with {o}",
                "Hide a treat under a cup and let {o} find it.",
                "Stop while your pet is still keen to play.",
                "Hide a treat and let {o} find it.",
            ),
            chat(
                "played with {o}",
                "How sweet, {o} must love the time with you.",
                "A short game every day keeps a pet fit and happy.",
                "A happy pet is a joy to play with.",
            ),
        ],
    },
    Topic {
        name: "cleaning",
        objects: &[
            "the oven",
            "the carpet",
            "the bathroom",
            "the fridge",
            "the sofa",
            "the kitchen floor",
        ],
        facts: &[],
        acts: &[
            how(
                "clean {o} without harsh products",
                "Wipe {o} with warm water, vinegar and a soft sponge.",
                "Rinse the sponge often and dry the surface with a towel.",
                "Warm water, vinegar and a sponge do the job.",
            ),
            how(
                "remove a stain from {o}",
                "Dab the stain on {o} with soap and a damp sponge.",
                "Rub from the edge to the middle and let the surface dry.",
                "Dab the stain with soap and do not rub hard.",
            ),
            how(
                "keep {o} fresh all week",
                "Wipe {o} for five minutes every evening.",
                "Open a window and use a bowl of baking soda against smells.",
                "Wipe a little every evening and open a window.",
            ),
            idea(
                "a cleaning plan for {o}",
                "Dust on Monday and wipe {o} with soap on Friday.",
                "Put the plan on the door and share the cleaning.",
                "Wipe {o} with soap every Friday.",
            ),
            chat(
                "scrubbed {o}",
                "Good work, {o} must be shining now.",
                "Wash the sponge as well so that no smell stays.",
                "A clean surface makes the whole home shine.",
            ),
        ],
    },
];
