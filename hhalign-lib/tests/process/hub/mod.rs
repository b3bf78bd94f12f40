//! The hub's files against a server on the loopback address that also breaks off, lies and
//! declines.

mod server;
mod trouble;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use hhalign::base::hub::{Hub, Repo, Snapshot};
use hhalign::base::secret::ApiKey;
use hhalign::data::Dataset;
use hhalign::data::tokenize::Tokenizer;
use hhalign::eval::metrics::toxicity::{ToxicBert, ToxicityScorer};
use hhalign::model::checkpoint::{load_model, save_model};
use hhalign::model::{Gpt, Preset};
use hhalign::notebook::options::RunOptions;

use self::server::{COMMIT, Does, Seen, Server, TOKEN};
use crate::child;
use crate::common::{Folder, error, golden};

const SIZE: usize = 300_000;

/// Bytes that differ from place to place, so that a part in a wrong place is seen.
fn content() -> Vec<u8> {
    (0..SIZE as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn repo() -> Repo {
    Repo::model("owner/small").at(COMMIT)
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![("owner/small/weights.bin", content()), ("owner/small/config.json", b"{}\n".to_vec())]
}

/// A server of one large and one small file.
fn server(plan: impl Fn(usize, &Seen) -> Does + Send + Sync + 'static) -> Server {
    Server::new(&files(), plan)
}

/// What it does with the requests for the bytes of the large file, one after another; then it
/// serves.
fn bytes_of_large(does: Vec<Does>) -> Server {
    let does = std::sync::Mutex::new(does.into_iter());
    server(move |_, seen| {
        if seen.elsewhere {
            does.lock().unwrap().next().unwrap_or(Does::Serves)
        } else {
            Does::Serves
        }
    })
}

fn incomplete(cache: &Folder) -> Vec<PathBuf> {
    let blobs = fs::read_dir(cache.join("models--owner--small/blobs")).unwrap();
    blobs.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some()).collect()
}

#[test]
fn a_file_is_fetched_once_and_lies_where_pythons_tool_looks() {
    let (server, cache) = (Server::good(&files()), Folder::new("hub-first"));
    let hub = server.hub(&cache.0);
    for (path, wanted) in [("weights.bin", content()), ("config.json", b"{}\n".to_vec())] {
        let found = hub.file(&repo(), path).unwrap();
        assert_eq!(fs::read(&found).unwrap(), wanted);
        assert_eq!(found, cache.join("models--owner--small/snapshots").join(COMMIT).join(path));
        let name = if path == "config.json" {
            server::git_name(&wanted)
        } else {
            hhalign::base::rng::sha256_hex([wanted.as_slice()], 64)
        };
        assert_eq!(fs::read_link(&found).unwrap(), Path::new("../../blobs").join(name));
    }
    assert!(incomplete(&cache).is_empty());
    assert!(
        !cache.join("models--owner--small/refs").exists(),
        "a commit needs no note of where it stands"
    );

    let before = server.seen().len();
    assert_eq!(before, 4, "a question and an answer for each file: {:?}", server.seen());
    let offline = Hub { offline: true, ..hub.clone() };
    for hub in [hub, offline] {
        let both = hub.files(&repo(), &["config.json", "weights.bin"]).unwrap();
        assert_eq!(
            both,
            Snapshot {
                folder: cache.join("models--owner--small/snapshots").join(COMMIT),
                commit: COMMIT.into()
            }
        );
    }
    assert_eq!(server.seen().len(), before, "what is in the cache needs no request");
}

#[test]
fn a_branch_is_looked_up_and_its_files_are_of_one_commit() {
    let (server, cache) = (Server::good(&files()), Folder::new("hub-branch"));
    let main = Repo::model("owner/small");
    let hub = server.hub(&cache.0);
    assert_eq!(hub.files(&main, &["config.json", "weights.bin"]).unwrap().commit, COMMIT);
    let seen = server.seen();
    assert!(seen[0].path.contains("/resolve/main/"), "{seen:?}");
    assert!(seen[2..].iter().all(|seen| seen.path.contains(COMMIT)), "{seen:?}");
    assert_eq!(fs::read_to_string(cache.join("models--owner--small/refs/main")).unwrap(), COMMIT);

    hub.files(&main, &["config.json", "weights.bin"]).unwrap();
    assert_eq!(
        server.seen()[seen.len()..].iter().map(|s| s.method.as_str()).collect::<Vec<_>>(),
        ["HEAD"]
    );
    assert_eq!(server.asked().len(), 2, "no body is fetched twice");

    let alone = Hub { endpoint: closed(), ..hub.clone() };
    assert_eq!(
        alone.files(&main, &["weights.bin"]).unwrap().commit,
        COMMIT,
        "without a network the cache serves"
    );
    let offline = Hub { offline: true, ..alone };
    assert_eq!(offline.files(&main, &["weights.bin"]).unwrap().commit, COMMIT);
}

/// An address where nobody listens.
fn closed() -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_download_that_broke_off_goes_on_where_it_stopped() {
    let (server, cache) =
        (bytes_of_large(vec![Does::Cuts(100_000), Does::Cuts(50_000)]), Folder::new("hub-cut"));
    let found = server.hub(&cache.0).file(&repo(), "weights.bin").unwrap();
    assert_eq!(fs::read(found).unwrap(), content());
    assert_eq!(server.asked(), [None, Some(100_000), Some(150_000)]);
    assert!(incomplete(&cache).is_empty());
}

#[test]
fn a_connection_that_falls_silent_is_given_up_and_the_download_goes_on() {
    let (server, cache) = (bytes_of_large(vec![Does::Stalls(100_000)]), Folder::new("hub-stall"));
    let hub = Hub { patience: Duration::from_millis(400), ..server.hub(&cache.0) };
    let start = Instant::now();
    assert_eq!(fs::read(hub.file(&repo(), "weights.bin").unwrap()).unwrap(), content());
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(server.asked(), [None, Some(100_000)]);
}

#[test]
fn another_process_finishes_what_one_began() {
    let server = bytes_of_large(vec![Does::Cuts(123_456)]);
    let cache = Folder::new("hub-two");
    let hub = Hub { retries: 0, ..server.hub(&cache.0) };
    let broken = error(hub.file(&repo(), "weights.bin"));
    assert!(broken.what().contains("broke off after 123456 of 300000 bytes"), "{broken}");
    assert!(broken.fix().starts_with("run it again: the download resumes"), "{broken}");
    assert_eq!(fs::metadata(&incomplete(&cache)[0]).unwrap().len(), 123_456);
    let said = in_a_process_of_its_own(&server, &cache, "file");
    assert!(said.contains("300000 bytes"), "{said}");
    assert_eq!(server.asked(), [None, Some(123_456)], "only the missing bytes are asked for");
    assert_eq!(fs::read(hub.file(&repo(), "weights.bin").unwrap()).unwrap(), content());
}

/// Runs a part of [`what_the_environment_says_is_done`] with a cache and a server named by
/// variables.
fn in_a_process_of_its_own(server: &Server, cache: &Folder, part: &str) -> String {
    let variables = [
        ("HF_ENDPOINT", server.endpoint()),
        ("HF_HUB_CACHE", cache.0.to_str().unwrap().into()),
        ("HF_HUB_OFFLINE", "0".into()),
        ("HF_TOKEN", TOKEN.into()),
        ("HHALIGN_DATA", format!("hub:harmless-base@{COMMIT}")),
        ("HHALIGN_TOXIC_BERT", format!("hub:unitary/toxic-bert@{COMMIT}")),
        ("HHALIGN_TEST_PART", part.into()),
    ];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    child::run("hub::what_the_environment_says_is_done", &variables)
}

#[test]
fn what_the_environment_says_is_done() {
    match std::env::var("HHALIGN_TEST_PART").as_deref() {
        Ok("file") => {
            let found = Hub::from_env().unwrap().file(&repo(), "weights.bin").unwrap();
            println!("{} bytes", fs::metadata(found).unwrap().len());
        }
        Ok("data") => {
            println!("data {}", RunOptions::from_env().unwrap().dataset().unwrap().hash())
        }
        Ok("model") => {
            println!(
                "model {}",
                load_model(format!("hub:owner/tiny@{COMMIT}"), false).unwrap().0.hash().unwrap()
            )
        }
        Ok("bert") => {
            let classifier = RunOptions::from_env().unwrap().classifier().unwrap();
            println!("bert {}", classifier.scorer().unwrap().identity());
        }
        _ => {
            let (server, cache) = (Server::good(&files()), Folder::new("hub-env"));
            assert!(in_a_process_of_its_own(&server, &cache, "file").contains("300000 bytes"));
            assert!(cache.join("models--owner--small").is_dir());
            let tokens: Vec<_> =
                server.seen().iter().map(|seen| (seen.token, seen.elsewhere)).collect();
            assert_eq!(
                tokens,
                [(true, false), (false, true)],
                "the token goes to the hub and nowhere else"
            );
        }
    }
}

#[test]
fn variables_are_read_as_pythons_tool_reads_them() {
    let read = |given: &'static [(&str, &str)]| {
        Hub::from_lookup(move |name| {
            given.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string())
        })
    };
    let cache = |given| read(given).unwrap().cache;
    assert_eq!(cache(&[("HOME", "/h")]), Path::new("/h/.cache/huggingface/hub"));
    assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
    assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~/hf")]), Path::new("/h/hf/hub"));
    assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
    assert!(error(read(&[])).fix().contains("HF_HOME"));
    let hub = read(&[
        ("HOME", "/h"),
        ("HF_ENDPOINT", "https://mirror/ "),
        ("HF_HUB_OFFLINE", "True"),
        ("HF_TOKEN", TOKEN),
    ]);
    let hub = hub.unwrap();
    assert_eq!((hub.endpoint.as_str(), hub.offline), ("https://mirror", true));
    assert!(!format!("{hub:?}").contains(TOKEN));
    assert!(!read(&[("HOME", "/h"), ("HF_HUB_OFFLINE", "0")]).unwrap().offline);

    let home = Folder::new("hub-token");
    home.write("token", format!("{TOKEN}\n"));
    let path = home.0.to_str().unwrap().to_string();
    let hub = Hub::from_lookup(|name| (name == "HF_HOME").then(|| path.clone())).unwrap();
    assert_eq!(hub.token, Some(ApiKey::new(TOKEN)));
    let silent = [("HF_HOME", path.as_str()), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")];
    let hub = Hub::from_lookup(|name| {
        silent.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string())
    });
    assert_eq!(hub.unwrap().token, None);
}

#[test]
fn a_server_that_knows_no_parts_sends_the_whole() {
    let (server, cache) =
        (bytes_of_large(vec![Does::Cuts(1000), Does::Whole]), Folder::new("hub-whole"));
    assert_eq!(
        fs::read(server.hub(&cache.0).file(&repo(), "weights.bin").unwrap()).unwrap(),
        content()
    );
    assert_eq!(server.asked(), [None, Some(1000)]);
}

#[test]
fn a_repository_that_moved_is_followed_and_not_in_circles() {
    let moved = |to: fn(&str) -> String| {
        server(move |_, seen| match seen.path.starts_with("/old/name/") {
            true => Does::Fails("307 Temporary Redirect", vec![("Location", to(&seen.path))]),
            false => Does::Serves,
        })
    };
    let old = Repo::model("old/name").at(COMMIT);
    let cache = Folder::new("hub-moved");
    let server = moved(|path| path.replace("/old/name/", "/owner/small/"));
    let hub = Hub { token: Some(ApiKey::new(TOKEN)), ..server.hub(&cache.0) };
    assert_eq!(fs::read(hub.file(&old, "weights.bin").unwrap()).unwrap(), content());
    let tokens: Vec<_> = server.seen().iter().map(|seen| (seen.token, seen.elsewhere)).collect();
    assert_eq!(tokens, [(true, false), (true, false), (false, true)]);
    let circle = moved(str::to_string);
    assert!(error(circle.hub(&cache.0).file(&old, "config.json")).got().contains("redirects"));
}

#[test]
fn two_threads_fetch_one_file_once() {
    let (server, cache) = (Server::good(&files()), Folder::new("hub-threads"));
    let hub = server.hub(&cache.0);
    let found = std::thread::scope(|scope| {
        let all: Vec<_> =
            (0..4).map(|_| scope.spawn(|| hub.file(&repo(), "weights.bin").unwrap())).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(found.iter().all(|path| fs::read(path).unwrap() == content()));
    assert_eq!(server.asked(), [None]);
}

fn rows(name: &str, count: usize) -> Vec<u8> {
    let row = |i: usize| {
        let start = format!("\\n\\nHuman: {name} {i}?\\n\\nAssistant:");
        format!("{{\"chosen\": \"{start} Yes, {i}.\", \"rejected\": \"{start} No.\"}}\n")
    };
    let mut packed = GzEncoder::new(vec![], Compression::default());
    (0..count).for_each(|i| packed.write_all(row(i).as_bytes()).unwrap());
    packed.finish().unwrap()
}

#[test]
fn data_from_the_hub_are_those_of_the_same_files() {
    let sides = [("test", rows("t", 20)), ("train", rows("r", 90))];
    let names = sides.clone().map(|(side, bytes)| {
        (format!("datasets/Anthropic/hh-rlhf/harmless-base/{side}.jsonl.gz"), bytes)
    });
    let server =
        Server::good(&names.each_ref().map(|(name, bytes)| (name.as_str(), bytes.clone())));
    let (cache, folder) = (Folder::new("hub-data"), Folder::new("hub-data-folder"));
    let data = Dataset::from_hub(&server.hub(&cache.0), "harmless-base", Some(COMMIT)).unwrap();
    assert_eq!(data.name, format!("Anthropic/hh-rlhf@{COMMIT}, harmless-base"));
    assert_eq!(
        (data.pairs.len(), data.pairs.iter().filter(|p| p.held_out == Some(true)).count()),
        (110, 20)
    );
    assert!(data.pairs.iter().all(|p| p.asks_for_harm() == Some(true)), "the subset is known");
    sides.iter().for_each(|(side, bytes)| {
        drop(folder.write(&format!("harmless-base/{side}.jsonl.gz"), bytes))
    });
    assert_eq!(data.hash(), Dataset::read(&folder.0).unwrap().hash());
    assert!(
        in_a_process_of_its_own(&server, &cache, "data").contains(&format!("data {}", data.hash()))
    );
    assert_eq!(server.asked().len(), 2, "the other process takes it from the cache");

    // All subsets are those of the same folder, in its order.
    let subsets = ["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"];
    let files = subsets
        .iter()
        .flat_map(|s| sides.iter().map(move |(side, _)| format!("{s}/{side}.jsonl.gz")));
    let files: Vec<(String, Vec<u8>)> =
        files.enumerate().map(|(i, name)| (name, rows(&format!("f{i}-"), 9))).collect();
    let named: Vec<_> = files
        .iter()
        .map(|(name, b)| (format!("datasets/Anthropic/hh-rlhf/{name}"), b.clone()))
        .collect();
    let server_of_all =
        Server::good(&named.iter().map(|(n, b)| (n.as_str(), b.clone())).collect::<Vec<_>>());
    let (cache_of_all, folder) = (Folder::new("hub-all"), Folder::new("hub-all-folder"));
    let all = Dataset::from_hub(&server_of_all.hub(&cache_of_all.0), "all", Some(COMMIT)).unwrap();
    assert_eq!(
        (all.name.as_str(), all.pairs.len()),
        (format!("Anthropic/hh-rlhf@{COMMIT}, all").as_str(), 72)
    );
    files.iter().for_each(|(name, bytes)| drop(folder.write(name, bytes)));
    assert_eq!(all.hash(), Dataset::read(&folder.0).unwrap().hash());

    let wrong = error(Dataset::hub("harmless", None));
    assert!(wrong.fix().contains("harmless-base, helpful-base"), "{wrong}");
    let pinned = Hub { offline: true, ..server.hub(&cache.0) };
    let absent = error(Dataset::from_hub(&pinned, "helpful-base", None));
    assert!(
        absent.fix().contains(
            "/resolve/09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa/helpful-base/test.jsonl.gz"
        ),
        "{absent}"
    );
}

/// A server of all files in a folder.
fn serves_folder(repo: &str, folder: &Path) -> Server {
    let named = |entry: fs::DirEntry| {
        (format!("{repo}/{}", entry.file_name().to_str().unwrap()), fs::read(entry.path()).unwrap())
    };
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| named(entry.unwrap())).collect();
    Server::good(
        &files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect::<Vec<_>>(),
    )
}

#[test]
fn models_from_the_hub_are_those_of_the_same_files() {
    let folder = Folder::new("hub-model");
    let data = Dataset::embedded(0, 120).unwrap();
    let tokenizer = Tokenizer::train(&data.pairs, 300).unwrap();
    let model = Gpt::new(Preset::Toy.config(tokenizer.vocab_size()), 3).unwrap();
    save_model(&model, &tokenizer, folder.join("tiny")).unwrap();
    let (server, cache) =
        (serves_folder("owner/tiny", &folder.join("tiny")), Folder::new("hub-model-cache"));
    let said = in_a_process_of_its_own(&server, &cache, "model");
    assert!(said.contains(&format!("model {}", model.hash().unwrap())), "{said}");
    let paths: Vec<_> = server
        .seen()
        .iter()
        .map(|seen| seen.path.rsplit('/').next().unwrap().to_string())
        .collect();
    assert!(
        paths
            .iter()
            .all(|p| ["config.json", "model.safetensors", "tokenizer.json"].contains(&p.as_str())),
        "{paths:?}"
    );

    let golden = golden("toxic_bert");
    let (server, cache) =
        (serves_folder("unitary/toxic-bert", &golden), Folder::new("hub-bert-cache"));
    let said = in_a_process_of_its_own(&server, &cache, "bert");
    assert!(
        said.contains(&format!("bert {}", ToxicBert::load(&golden).unwrap().identity())),
        "{said}"
    );
}
