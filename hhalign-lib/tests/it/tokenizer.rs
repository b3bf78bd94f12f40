//! Tokenizers: learnt reproducibly, kept whole, without loss, and GPT-2's equal to OpenAI's own.

use hhalign::data::Dataset;
use hhalign::data::tokenize::{EOS, Tokenizer};
use rand::Rng as _;

use crate::common::{Folder, error, texts};
use crate::fixtures::test_data;

const SAMPLES: &[&str] = &[
    "",
    " ",
    "Hello there!",
    "  two  spaces\n\n\nand lines\r\n\ttabs ",
    "\n\nHuman: How do I bake bread?\n\nAssistant: I'd start with flour, and you'll need 500 g of it.",
    "it's we've they'll I'm you'd he'S IT'S",
    "1234567890 3.14159 1,000,000 0x7f",
    "naïve café Zürich Ångström œuvre",
    "日本語のテキスト 한국어 中文字符 العربية עברית हिन्दी ไทย",
    "🦀👩‍👩‍👧‍👦🏳️‍🌈 e\u{301} \u{200b}\u{feff}\u{2028}\u{ad}",
    "\0\u{1}\u{7}\u{1b}[0m\u{7f}\u{80}\u{9f}\u{10ffff}",
    "fn main() {\n    let x: Vec<u8> = vec![0; 16]; // comment\n\tprintln!(\"{x:?}\");\n}\n",
    "def f(x):\n    return [i ** 2 for i in range(x) if i % 2 == 0]  # list\n",
    "<html><body class=\"a\">&amp;</body></html> SELECT * FROM t WHERE a='b';",
    "!!!???...,,,;;; ((())) [[[]]] -- —– “quotes” ‘single’ …",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa          zzzzzzzzzz",
    "<|endoftext|> a <|endoftext|><|endoftext|>b <|endoftext |>",
];

/// Strings of characters from everywhere, the same at every run.
fn random_texts(n: usize) -> Vec<String> {
    let mut rng = hhalign::base::rng::stream(1, "tokenizer tests", &[]);
    let limits = [0x80, 0x250, 0x3000, 0x1_0000, 0x11_0000];
    let text = |_| {
        let limit = limits[rng.random_range(0..limits.len())];
        let length = rng.random_range(1..60);
        (0..length).filter_map(|_| char::from_u32(rng.random_range(0..limit))).collect()
    };
    (0..n).map(text).collect()
}

fn trained() -> Tokenizer {
    Tokenizer::train(&texts(1, 80), 500).unwrap()
}

fn assert_round_trips(tokenizer: &Tokenizer) {
    let random = random_texts(400);
    for text in SAMPLES.iter().copied().chain(random.iter().map(String::as_str)) {
        let ids = tokenizer.encode(text).unwrap();
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()), "{text:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text, "{ids:?}");
        assert_eq!(tokenizer.pieces(&ids).unwrap().len(), ids.len());
    }
}

fn assert_special_text_stays_text(tokenizer: &Tokenizer) {
    for text in [EOS, "a<|endoftext|>b", "<|endoftext|><|endoftext|>", " <|endoftext|>\n"] {
        let ids = tokenizer.encode(text).unwrap();
        assert!(!ids.contains(&tokenizer.eos_id()), "{text:?} became the end of text: {ids:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
    let ended = [tokenizer.encode("Bye.").unwrap(), vec![tokenizer.eos_id()]].concat();
    assert_eq!(tokenizer.decode(&ended).unwrap(), "Bye.", "the end of text itself is not shown");
}

#[test]
fn learning_twice_gives_equal_files() {
    let folder = Folder::new("twice");
    let file = |name: &str| {
        let path = folder.join(name);
        trained().save(&path).unwrap();
        std::fs::read(path).unwrap()
    };
    assert!(file("a/tokenizer.json") == file("b/tokenizer.json"));
    assert_eq!(trained().hash(), trained().hash());
    assert_ne!(trained().hash(), Tokenizer::train(&texts(2, 80), 500).unwrap().hash());
}

#[test]
fn a_learnt_vocabulary_has_the_size_asked_for_and_shortens_its_text() {
    let tokenizer = trained();
    assert_eq!(tokenizer.vocab_size(), 500);
    let text: String = texts(1, 80).iter().map(|p| p.chosen.clone()).collect();
    let ids = tokenizer.encode(&text).unwrap();
    assert!(ids.len() * 3 < text.len() * 2, "{} ids for {} bytes", ids.len(), text.len());
    let bytes_only = Tokenizer::train(&texts(1, 10), 257).unwrap();
    assert_eq!(bytes_only.encode("naïve").unwrap().len(), "naïve".len());
}

#[test]
fn every_text_comes_back_from_a_learnt_vocabulary() {
    assert_round_trips(&trained());
    assert_round_trips(&Tokenizer::train(&texts(1, 10), 257).unwrap());
}

#[test]
fn a_text_that_spells_out_the_end_of_text_stays_text() {
    assert_special_text_stays_text(&trained());
    let folder = Folder::new("special");
    let path = folder.join("tokenizer.json");
    trained().save(&path).unwrap();
    // How special tokens are matched is a setting of the reader, not of the file.
    assert_special_text_stays_text(&Tokenizer::load(&path).unwrap());
}

#[test]
fn a_saved_tokenizer_loads_with_the_same_ids() {
    let folder = Folder::new("save");
    let path = folder.join("tokenizer.json");
    let tokenizer = trained();
    tokenizer.save(&path).unwrap();
    let loaded = Tokenizer::load(&path).unwrap();
    assert_eq!(
        (loaded.eos_id(), loaded.vocab_size()),
        (tokenizer.eos_id(), tokenizer.vocab_size())
    );
    assert_eq!(loaded.hash(), tokenizer.hash());
    for text in SAMPLES {
        assert_eq!(loaded.encode(text).unwrap(), tokenizer.encode(text).unwrap(), "{text:?}");
    }
    let again = folder.join("again.json");
    loaded.save(&again).unwrap();
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap());
}

#[test]
fn bad_vocabularies_and_files_are_refused() {
    assert!(error(Tokenizer::train(&texts(1, 5), 256)).what().contains("too small"));
    assert!(error(Tokenizer::train(&[], 300)).what().contains("no text"));
    let folder = Folder::new("bad-tokenizer");
    assert!(error(Tokenizer::load(folder.join("none.json"))).what().contains("none.json"));
    let broken = error(Tokenizer::load(folder.write("broken.json", "{\"model\": 3}")));
    assert!(
        broken.what().contains("broken.json") && broken.what().contains("tokenizer.json"),
        "{broken}"
    );
    // A whole tokenizer without the end of text could never end a reply.
    let path = folder.join("tokenizer.json");
    trained().save(&path).unwrap();
    let without = std::fs::read_to_string(&path).unwrap().replace(EOS, "<|other|>");
    assert!(error(Tokenizer::load(folder.write("without.json", without))).what().contains(EOS));
}

#[test]
fn gpt2_has_its_published_ids() {
    let gpt2 = Tokenizer::gpt2().unwrap();
    assert_eq!((gpt2.vocab_size(), gpt2.eos_id()), (50_257, 50_256));
    assert_eq!(gpt2.encode("Hello world").unwrap(), [15496, 995]);
    assert_round_trips(&gpt2);
    assert_special_text_stays_text(&gpt2);
}

#[test]
fn gpt2_gives_the_ids_of_tiktoken() {
    let (gpt2, tiktoken) = (Tokenizer::gpt2().unwrap(), tiktoken_rs::r50k_base().unwrap());
    let embedded = texts(5, 100).into_iter().flat_map(|p| [p.prompt, p.chosen, p.rejected]);
    let own =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/model/mod.rs")).unwrap();
    let all =
        SAMPLES.iter().map(|s| s.to_string()).chain(random_texts(400)).chain(embedded).chain([own]);
    for text in all {
        assert_eq!(gpt2.encode(&text).unwrap(), tiktoken.encode_ordinary(&text), "{text:?}");
    }
    // Every single id decodes to the same bytes, wherever they are text by themselves.
    for id in 0..50_256u32 {
        let bytes = tiktoken.decode_bytes(&[id]).unwrap();
        if let Ok(text) = String::from_utf8(bytes) {
            assert_eq!(gpt2.decode(&[id]).unwrap(), text, "id {id}");
        }
    }
}

#[test]
fn gpt2_gives_the_ids_of_tiktoken_on_real_dialogues() {
    let Some(folder) = test_data("gpt2_gives_the_ids_of_tiktoken_on_real_dialogues") else {
        return;
    };
    let (gpt2, tiktoken) = (Tokenizer::gpt2().unwrap(), tiktoken_rs::r50k_base().unwrap());
    let data = Dataset::read(folder.join("hh/harmless-base.test.jsonl.gz")).unwrap();
    for pair in &data.pairs {
        for text in [&pair.prompt, &pair.chosen, &pair.rejected] {
            let ids = gpt2.encode(text).unwrap();
            assert_eq!(ids, tiktoken.encode_ordinary(text), "{text:?}");
            assert_eq!(&gpt2.decode(&ids).unwrap(), text);
        }
    }
}
