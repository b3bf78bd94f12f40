//! The hub's files against a server on the loopback address that also breaks off, lies and declines.

mod common;
mod hub_server;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Folder, error};
use flate2::Compression;
use flate2::write::GzEncoder;
use hhalign::checkpoint::{load_model, save_model};
use hhalign::data::Dataset;
use hhalign::eval::toxicity::{ToxicBert, ToxicityScorer};
use hhalign::hub::{Hub, Repo, Snapshot};
use hhalign::model::{Gpt, Preset};
use hhalign::options::RunOptions;
use hhalign::secret::ApiKey;
use hhalign::tokenize::Tokenizer;
use hub_server::{COMMIT, Does, Seen, Server, TOKEN};

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

/// What it does with the requests for the bytes of the large file, one after another; then it serves.
fn bytes_of_large(does: Vec<Does>) -> Server {
    let does = std::sync::Mutex::new(does.into_iter());
    server(
        move |_, seen| if seen.elsewhere { does.lock().unwrap().next().unwrap_or(Does::Serves) } else { Does::Serves },
    )
}

fn incomplete(cache: &Folder) -> Vec<PathBuf> {
    let blobs = fs::read_dir(cache.join("models--owner--small/blobs")).unwrap();
    blobs.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some()).collect()
}

/// The part of an error's `fix` that names the way by hand leads to a place where the file is then found.
fn assert_the_way_by_hand(error: &hhalign::error::Error, hub: &Hub, repo: &Repo, path: &str) {
    let (_, way) = error.fix().split_once("or by hand: open ").unwrap_or_else(|| panic!("no way by hand: {error}"));
    let (address, place) = way.split_once(" in a browser and save the file as ").unwrap();
    assert!(address.starts_with(&hub.endpoint) && address.ends_with(&format!("/resolve/{}/{path}", repo.revision)));
    fs::create_dir_all(Path::new(place).parent().unwrap()).unwrap();
    fs::write(place, "by hand").unwrap();
    let offline = Hub { offline: true, ..hub.clone() };
    assert_eq!(fs::read_to_string(offline.file(repo, path).unwrap()).unwrap(), "by hand");
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
            hub_server::git_name(&wanted)
        } else {
            hhalign::rng::sha256_hex([wanted.as_slice()], 64)
        };
        assert_eq!(fs::read_link(&found).unwrap(), Path::new("../../blobs").join(name));
    }
    assert!(incomplete(&cache).is_empty());
    assert!(!cache.join("models--owner--small/refs").exists(), "a commit needs no note of where it stands");

    let before = server.seen().len();
    assert_eq!(before, 4, "a question and an answer for each file: {:?}", server.seen());
    let offline = Hub { offline: true, ..hub.clone() };
    for hub in [hub, offline] {
        let both = hub.files(&repo(), &["config.json", "weights.bin"]).unwrap();
        assert_eq!(
            both,
            Snapshot { folder: cache.join("models--owner--small/snapshots").join(COMMIT), commit: COMMIT.into() }
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
    assert_eq!(server.seen()[seen.len()..].iter().map(|s| s.method.as_str()).collect::<Vec<_>>(), ["HEAD"]);
    assert_eq!(server.asked().len(), 2, "no body is fetched twice");

    let alone = Hub { endpoint: closed(), ..hub.clone() };
    assert_eq!(alone.files(&main, &["weights.bin"]).unwrap().commit, COMMIT, "without a network the cache serves");
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
    let (server, cache) = (bytes_of_large(vec![Does::Cuts(100_000), Does::Cuts(50_000)]), Folder::new("hub-cut"));
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
fn a_host_of_bytes_that_is_not_there_is_named() {
    let (nobody, cache) = (closed(), Folder::new("hub-nobody"));
    let to = format!("{nobody}/weights.bin");
    let server = server(move |_, _| Does::Header("Location", to.clone()));
    let hub = Hub { retries: 9, ..server.hub(&cache.0) };
    let unreachable = error(hub.file(&repo(), "weights.bin"));
    assert_eq!(unreachable.what(), format!("{nobody} cannot be reached"));
    assert_eq!(server.seen().len(), 3, "whoever has no network hears of it soon");
}

#[test]
fn another_process_finishes_what_one_began() {
    let server = bytes_of_large(vec![Does::Cuts(123_456)]);
    let cache = Folder::new("hub-two");
    let hub = Hub { retries: 0, ..server.hub(&cache.0) };
    let broken = error(hub.file(&repo(), "weights.bin"));
    assert!(broken.what().contains("broke off after 123456 of 300000 bytes"), "{broken}");
    assert!(broken.fix().starts_with("run it again: it goes on from there"), "{broken}");
    assert_eq!(fs::metadata(&incomplete(&cache)[0]).unwrap().len(), 123_456);
    let said = in_a_process_of_its_own(&server, &cache, "file");
    assert!(said.contains("300000 bytes"), "{said}");
    assert_eq!(server.asked(), [None, Some(123_456)], "only the missing bytes are asked for");
    assert_eq!(fs::read(hub.file(&repo(), "weights.bin").unwrap()).unwrap(), content());
}

/// Runs a part of [`what_the_environment_says_is_done`] with a cache and a server named by variables.
fn in_a_process_of_its_own(server: &Server, cache: &Folder, part: &str) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "what_the_environment_says_is_done", "--nocapture"]);
    child.env("HF_ENDPOINT", server.endpoint()).env("HF_HUB_CACHE", &cache.0).env("HHALIGN_TEST_PART", part);
    child.env("HHALIGN_DATA", format!("hub:harmless-base@{COMMIT}"));
    child.env("HHALIGN_TOXIC_BERT", format!("hub:unitary/toxic-bert@{COMMIT}"));
    child.env("HF_TOKEN", TOKEN).env_remove("HF_HUB_OFFLINE");
    let done = child.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    said
}

#[test]
fn what_the_environment_says_is_done() {
    match std::env::var("HHALIGN_TEST_PART").as_deref() {
        Ok("file") => {
            let found = Hub::from_env().unwrap().file(&repo(), "weights.bin").unwrap();
            println!("{} bytes", fs::metadata(found).unwrap().len());
        }
        Ok("data") => println!("data {}", RunOptions::from_env().unwrap().dataset().unwrap().hash()),
        Ok("model") => {
            println!("model {}", load_model(format!("hub:owner/tiny@{COMMIT}"), false).unwrap().0.hash().unwrap())
        }
        Ok("bert") => {
            let classifier = RunOptions::from_env().unwrap().classifier().unwrap();
            println!("bert {}", classifier.scorer().unwrap().identity());
        }
        _ => {
            let (server, cache) = (Server::good(&files()), Folder::new("hub-env"));
            assert!(in_a_process_of_its_own(&server, &cache, "file").contains("300000 bytes"));
            assert!(cache.join("models--owner--small").is_dir());
            let tokens: Vec<_> = server.seen().iter().map(|seen| (seen.token, seen.elsewhere)).collect();
            assert_eq!(tokens, [(true, false), (false, true)], "the token goes to the hub and nowhere else");
        }
    }
}

#[test]
fn variables_are_read_as_pythons_tool_reads_them() {
    let read = |given: &'static [(&str, &str)]| {
        Hub::from_lookup(move |name| given.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
    };
    let cache = |given| read(given).unwrap().cache;
    assert_eq!(cache(&[("HOME", "/h")]), Path::new("/h/.cache/huggingface/hub"));
    assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
    assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~/hf")]), Path::new("/h/hf/hub"));
    assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
    assert!(error(read(&[])).fix().contains("HF_HOME"));
    let hub =
        read(&[("HOME", "/h"), ("HF_ENDPOINT", "https://mirror/ "), ("HF_HUB_OFFLINE", "True"), ("HF_TOKEN", TOKEN)]);
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
    let hub = Hub::from_lookup(|name| silent.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()));
    assert_eq!(hub.unwrap().token, None);
}

#[test]
fn bytes_that_are_not_those_the_hub_names_are_not_kept() {
    let wrong = || Does::Sends(vec![7; SIZE]);
    let (server, cache) = (bytes_of_large(vec![wrong(), wrong(), wrong()]), Folder::new("hub-sum"));
    let hub = server.hub(&cache.0);
    let refused = error(hub.file(&repo(), "weights.bin"));
    assert!(refused.what().contains("was not kept") && refused.got().contains("instead of"), "{refused}");
    assert_eq!(server.asked(), [None, None], "once more from the beginning, and then no more");
    assert_eq!(fs::read_dir(cache.join("models--owner--small/blobs")).unwrap().count(), 0);
    assert!(!cache.join("models--owner--small/snapshots").exists());
    assert_the_way_by_hand(&refused, &hub, &repo(), "weights.bin");
}

#[test]
fn a_bad_beginning_is_thrown_away() {
    let (server, cache) = (Server::good(&files()), Folder::new("hub-bad"));
    let sum = hhalign::rng::sha256_hex([content().as_slice()], 64);
    cache.write(&format!("models--owner--small/blobs/{sum}.incomplete"), vec![7; 1000]);
    let hub = server.hub(&cache.0);
    assert_eq!(fs::read(hub.file(&repo(), "weights.bin").unwrap()).unwrap(), content());
    assert_eq!(server.asked(), [Some(1000), None]);
}

#[test]
fn a_server_that_knows_no_parts_sends_the_whole() {
    let (server, cache) = (bytes_of_large(vec![Does::Cuts(1000), Does::Whole]), Folder::new("hub-whole"));
    assert_eq!(fs::read(server.hub(&cache.0).file(&repo(), "weights.bin").unwrap()).unwrap(), content());
    assert_eq!(server.asked(), [None, Some(1000)]);
}

#[test]
fn a_wrong_length_is_refused_before_the_first_byte() {
    for (name, other) in [("short", SIZE - 1), ("long", SIZE + 1), ("page", 12)] {
        let server = server(move |_, seen| if seen.elsewhere { Does::Sends(vec![7; other]) } else { Does::Serves });
        let cache = Folder::new(&format!("hub-length-{name}"));
        let hub = server.hub(&cache.0);
        let refused = error(hub.file(&repo(), "weights.bin"));
        assert!(refused.what().contains("must have 300000 bytes"), "{refused}");
        assert_eq!(refused.got(), format!("{other} bytes announced"));
        assert_eq!(server.asked().len(), 1 + hub.retries);
        assert_eq!(fs::metadata(&incomplete(&cache)[0]).unwrap().len(), 0);
        assert_the_way_by_hand(&refused, &hub, &repo(), "weights.bin");
    }
}

#[test]
fn a_length_that_is_not_announced_is_counted() {
    let whole = content();
    let server = bytes_of_large(vec![
        Does::Unmeasured([whole.as_slice(), b"more"].concat()),
        Does::Unmeasured(whole[..70_000].to_vec()),
        Does::Header("Content-Range", format!("bytes 70001-{}/{SIZE}", SIZE - 1)),
        Does::Unmeasured(whole[70_000..].to_vec()),
    ]);
    let cache = Folder::new("hub-unmeasured");
    assert_eq!(fs::read(server.hub(&cache.0).file(&repo(), "weights.bin").unwrap()).unwrap(), whole);
    assert_eq!(server.asked(), [None, None, Some(70_000), Some(70_000)]);
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
fn too_many_requests_are_repeated_when_the_server_says() {
    let busy = || Does::Fails("429 Too Many Requests", vec![("Retry-After", "1".into())]);
    let cache = Folder::new("hub-429");
    let server = server(move |number, _| if number == 0 { busy() } else { Does::Serves });
    let start = Instant::now();
    assert_eq!(fs::read(server.hub(&cache.0).file(&repo(), "weights.bin").unwrap()).unwrap(), content());
    assert!(start.elapsed() >= Duration::from_secs(1), "it waits as long as it is asked to: {:?}", start.elapsed());
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_server_that_never_has_time_is_named_with_the_time_it_asks_for() {
    let limit = ("RateLimit", "\"resolve\";r=0;t=240".to_string());
    let server = server(move |_, _| Does::Fails("429 Too Many Requests", vec![limit.clone()]));
    let cache = Folder::new("hub-429-ever");
    let hub = server.hub(&cache.0);
    let refused = error(hub.file(&repo(), "weights.bin"));
    assert!(refused.fix().starts_with("run it again in 240 s") && refused.got().starts_with("429"), "{refused}");
    assert_eq!(server.seen().len(), 1, "a long wait is the caller's to decide");
    assert_the_way_by_hand(&refused, &hub, &repo(), "weights.bin");

    let server = self::server(|_, _| Does::Fails("429 Too Many Requests", vec![("Retry-After", "0".into())]));
    let refused = error(server.hub(&cache.0).file(&repo(), "config.json"));
    assert!(refused.what().contains("too many requests"), "{refused}");
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    let cache = Folder::new("hub-503");
    let server =
        server(|number, _| if number < 2 { Does::Fails("503 Service Unavailable", vec![]) } else { Does::Serves });
    server.hub(&cache.0).file(&repo(), "config.json").unwrap();
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn what_the_server_declines_is_said_and_not_asked_again() {
    let code =
        |code: &'static str| vec![("X-Error-Code", code.to_string()), ("X-Error-Message", format!("no for {TOKEN}"))];
    let cases = [
        ("401 Unauthorized", "RepoNotFound", "without a valid token", "HF_TOKEN"),
        ("403 Forbidden", "GatedRepo", "does not let you have", "ask for access on"),
        ("404 Not Found", "RepoNotFound", "no repository owner/small", "names and revisions"),
        ("404 Not Found", "RevisionNotFound", &format!("no revision {COMMIT}"), "names and revisions"),
        ("404 Not Found", "EntryNotFound", "no file weights.bin", "names and revisions"),
        ("404 Not Found", "", "has no owner/small/weights.bin", "names and revisions"),
        ("410 Gone", "", "does not send", "HF_ENDPOINT"),
    ];
    for (i, (status, reason, what, fix)) in cases.into_iter().enumerate() {
        let server = server(move |_, _| Does::Fails(status, code(reason)));
        let cache = Folder::new(&format!("hub-declines-{i}"));
        let hub = Hub { token: Some(ApiKey::new(TOKEN)), ..server.hub(&cache.0) };
        let refused = error(hub.file(&repo(), "weights.bin"));
        assert!(refused.what().contains(what) && refused.fix().contains(fix), "{refused}");
        assert!(refused.got().starts_with(status) && !refused.to_string().contains(TOKEN), "{refused}");
        assert_eq!(server.seen().len(), 1);
        assert_the_way_by_hand(&refused, &hub, &repo(), "weights.bin");
    }
    let server = Server::good(&files());
    let cache = Folder::new("hub-absent");
    assert!(error(server.hub(&cache.0).file(&repo(), "absent.txt")).what().contains("no file absent.txt"));
}

#[test]
fn without_a_network_or_offline_the_way_by_hand_is_named() {
    let cache = Folder::new("hub-none");
    let hub = Hub {
        endpoint: closed(),
        retries: 5,
        first_wait: Duration::from_millis(5),
        progress: false,
        ..Hub::new(&cache.0)
    };
    let offline = error(Hub { offline: true, ..hub.clone() }.file(&repo(), "config.json"));
    assert!(
        offline.what().contains("HF_HUB_OFFLINE is set") && offline.fix().contains("unset HF_HUB_OFFLINE"),
        "{offline}"
    );
    assert_the_way_by_hand(&offline, &hub, &repo(), "config.json");
    let unreachable = error(hub.file(&repo(), "weights.bin"));
    assert!(unreachable.what().contains("cannot be reached") && unreachable.fix().contains("check the network"));
    assert_the_way_by_hand(&unreachable, &hub, &repo(), "weights.bin");
    let main = Repo::model("owner/small");
    assert_the_way_by_hand(&error(hub.file(&main, "more.bin")), &hub, &main, "more.bin");

    for address in ["huggingface.co", "ftp://host", "https://user:pass@host"] {
        let wrong = error(Hub { endpoint: address.into(), ..hub.clone() }.file(&main, "x"));
        assert!(wrong.what().contains("address cannot be used") && !wrong.to_string().contains("pass@"), "{wrong}");
    }
}

#[test]
fn an_answer_that_is_not_a_hubs_is_refused() {
    let cases = [
        ("X-Linked-ETag", "\"5f3c-61b\"".to_string()),
        ("X-Linked-ETag", "\"../../../escape\"".to_string()),
        ("X-Repo-Commit", "../../escape".into()),
        ("X-Repo-Commit", "2".repeat(40)),
        ("X-Linked-Size", "many".into()),
        ("Location", "file:///etc/passwd".into()),
    ];
    for (i, (name, value)) in cases.into_iter().enumerate() {
        let cache = Folder::new(&format!("hub-unclear-{i}"));
        let server = server(move |_, _| Does::Header(name, value.clone()));
        let refused = error(server.hub(&cache.0).file(&repo(), "weights.bin"));
        assert!(refused.what().contains("does not say what owner/small/weights.bin is"), "{name}: {refused}");
        assert!(server.asked().is_empty() && !cache.join("models--owner--small/snapshots").exists());
    }
    let cache = Folder::new("hub-space");
    let server = server(|_, _| Does::Header("X-Linked-Size", (1_u64 << 60).to_string()));
    let full = error(server.hub(&cache.0).file(&repo(), "weights.bin"));
    assert!(full.what().contains("no space for") && full.fix().contains("HF_HUB_CACHE"), "{full}");
    assert!(server.asked().is_empty(), "space is looked at before the first byte");
}

#[test]
fn two_threads_fetch_one_file_once() {
    let (server, cache) = (Server::good(&files()), Folder::new("hub-threads"));
    let hub = server.hub(&cache.0);
    let found = std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| hub.file(&repo(), "weights.bin").unwrap())).collect();
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
    let names =
        sides.clone().map(|(side, bytes)| (format!("datasets/Anthropic/hh-rlhf/harmless-base/{side}.jsonl.gz"), bytes));
    let server = Server::good(&names.each_ref().map(|(name, bytes)| (name.as_str(), bytes.clone())));
    let (cache, folder) = (Folder::new("hub-data"), Folder::new("hub-data-folder"));
    let data = Dataset::from_hub(&server.hub(&cache.0), "harmless-base", Some(COMMIT)).unwrap();
    assert_eq!(data.name, format!("Anthropic/hh-rlhf@{COMMIT}, harmless-base"));
    assert_eq!((data.pairs.len(), data.pairs.iter().filter(|p| p.held_out == Some(true)).count()), (110, 20));
    assert!(data.pairs.iter().all(|p| p.asks_for_harm() == Some(true)), "the subset is known");
    sides.iter().for_each(|(side, bytes)| drop(folder.write(&format!("harmless-base/{side}.jsonl.gz"), bytes)));
    assert_eq!(data.hash(), Dataset::read(&folder.0).unwrap().hash());
    assert!(in_a_process_of_its_own(&server, &cache, "data").contains(&format!("data {}", data.hash())));
    assert_eq!(server.asked().len(), 2, "the other process takes it from the cache");

    let wrong = error(Dataset::hub("harmless", None));
    assert!(wrong.fix().contains("harmless-base, helpful-base"), "{wrong}");
    let pinned = Hub { offline: true, ..server.hub(&cache.0) };
    let absent = error(Dataset::from_hub(&pinned, "helpful-base", None));
    assert!(
        absent.fix().contains("/resolve/09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa/helpful-base/test.jsonl.gz"),
        "{absent}"
    );
}

/// A server of all files in a folder.
fn serves_folder(repo: &str, folder: &Path) -> Server {
    let named = |entry: fs::DirEntry| {
        (format!("{repo}/{}", entry.file_name().to_str().unwrap()), fs::read(entry.path()).unwrap())
    };
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| named(entry.unwrap())).collect();
    Server::good(&files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect::<Vec<_>>())
}

#[test]
fn models_from_the_hub_are_those_of_the_same_files() {
    let folder = Folder::new("hub-model");
    let data = Dataset::embedded(0, 120).unwrap();
    let tokenizer = Tokenizer::train(&data.pairs, 300).unwrap();
    let model = Gpt::new(Preset::Toy.config(tokenizer.vocab_size()), 3).unwrap();
    save_model(&model, &tokenizer, folder.join("tiny")).unwrap();
    let (server, cache) = (serves_folder("owner/tiny", &folder.join("tiny")), Folder::new("hub-model-cache"));
    let said = in_a_process_of_its_own(&server, &cache, "model");
    assert!(said.contains(&format!("model {}", model.hash().unwrap())), "{said}");
    let paths: Vec<_> = server.seen().iter().map(|seen| seen.path.rsplit('/').next().unwrap().to_string()).collect();
    assert!(
        paths.iter().all(|p| ["config.json", "model.safetensors", "tokenizer.json"].contains(&p.as_str())),
        "{paths:?}"
    );

    let golden = common::golden("toxic_bert");
    let (server, cache) = (serves_folder("unitary/toxic-bert", &golden), Folder::new("hub-bert-cache"));
    let said = in_a_process_of_its_own(&server, &cache, "bert");
    assert!(said.contains(&format!("bert {}", ToxicBert::load(&golden).unwrap().identity())), "{said}");
}
