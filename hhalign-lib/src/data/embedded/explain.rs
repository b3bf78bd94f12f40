//! Topics to explain. `facts` says what each object is, and a full or short reply quotes it.

use super::topic::{Topic, chat, how, what};

pub(super) const TOPICS: &[Topic] = &[
    Topic {
        name: "space",
        objects: &["the moon", "the sun", "a comet", "a black hole", "gravity", "a galaxy"],
        facts: &[
            "a ball of rock that circles the earth",
            "a hot star that lights our planets",
            "a lump of ice and dust with a bright tail",
            "a place in space that lets no light out",
            "the pull that holds us to the earth",
            "a huge island of stars in space",
        ],
        acts: &[
            what(
                "{o}",
                "In short, {o} is {f}.",
                "You can read about it in any book on stars and planets.",
                "Astronomers call it {f}.",
            ),
            what(
                "{o} and why it matters",
                "People who study space say that {o} is {f}.",
                "It matters because it tells us how stars and planets move.",
                "It is {f}, and it tells us how planets move.",
            ),
            how(
                "draw {o} for a school poster",
                "Draw {o} in the middle of black paper.",
                "Write below that it is {f}, and add stars.",
                "Use black paper and add stars round it.",
            ),
            chat(
                "read a book about {o}",
                "How interesting, {o} is {f}.",
                "A telescope would be a good next step for you.",
                "Books about stars and planets never get old.",
            ),
        ],
    },
    Topic {
        name: "weather",
        objects: &["thunder", "fog", "snow", "hail", "a rainbow", "a storm"],
        facts: &[
            "the sound of air that lightning heats",
            "a cloud that touches the ground",
            "ice crystals that fall from a cold cloud",
            "balls of ice that grow in a tall cloud",
            "sunlight split into colours by drops of rain",
            "strong wind that comes with rain clouds",
        ],
        acts: &[
            what(
                "{o}",
                "In short, {o} is {f}.",
                "Watch the clouds and the wind, and you can often tell when it comes.",
                "Weather experts call it {f}.",
            ),
            what(
                "the science of {o}",
                "The science says that {o} is {f}.",
                "The sun warms the air and lifts water into the clouds, and the rest follows.",
                "It is {f}, and it begins with water in the air.",
            ),
            how(
                "describe {o} in a weather diary",
                "Note the hour of {o} and the colour of the clouds.",
                "Add the wind and the rain, and draw the sky.",
                "Note the hour, the wind and the clouds.",
            ),
            chat(
                "watched {o} from the window",
                "What a sight, {o} is {f}.",
                "Look at the clouds tomorrow and guess the weather.",
                "The weather is the best show in the sky.",
            ),
        ],
    },
    Topic {
        name: "inventions",
        objects: &[
            "the wheel",
            "the compass",
            "the telephone",
            "the printing press",
            "the steam engine",
            "the clock",
        ],
        facts: &[
            "a round tool that makes carts roll",
            "a needle that points to the north",
            "a machine that carries voices over a wire",
            "a machine that makes many copies of a page",
            "a machine that turns hot steam into motion",
            "a machine that counts the hours",
        ],
        acts: &[
            what(
                "{o}",
                "In short, {o} is {f}.",
                "Inventors made it better over many years.",
                "The inventors made {f}.",
            ),
            what(
                "the story of {o}",
                "The story of {o} is about {f}.",
                "It changed how people worked, and inventors still use the idea.",
                "It is about {f}, and it changed how people worked.",
            ),
            how(
                "build a paper model of {o}",
                "Cut the parts of {o} from card and glue them.",
                "Write on a label that it is {f}.",
                "Cut the parts from card and glue them.",
            ),
            chat(
                "gave a talk about {o}",
                "Very good, {o} is {f}, and it changed the world.",
                "Next time, show a model so that people see the parts move.",
                "Inventors make a fine subject for a talk.",
            ),
        ],
    },
];
