//! What goes wrong with the hub: every error says so, and names a way by hand that works.

use super::*;

/// The part of an error's `fix` that names the way by hand leads to a place where the file is then
/// found.
fn assert_the_way_by_hand(error: &hhalign::base::error::Error, hub: &Hub, repo: &Repo, path: &str) {
    let (_, way) = error
        .fix()
        .split_once("or by hand: open ")
        .unwrap_or_else(|| panic!("no way by hand: {error}"));
    let (address, place) = way.split_once(" in a browser and save the file as ").unwrap();
    assert!(
        address.starts_with(&hub.endpoint)
            && address.ends_with(&format!("/resolve/{}/{path}", repo.revision))
    );
    fs::create_dir_all(Path::new(place).parent().unwrap()).unwrap();
    fs::write(place, "by hand").unwrap();
    let offline = Hub { offline: true, ..hub.clone() };
    assert_eq!(fs::read_to_string(offline.file(repo, path).unwrap()).unwrap(), "by hand");
}

#[test]
fn bytes_that_are_not_those_the_hub_names_are_not_kept() {
    let wrong = || Does::Sends(vec![7; SIZE]);
    let (server, cache) = (bytes_of_large(vec![wrong(), wrong(), wrong()]), Folder::new("hub-sum"));
    let hub = server.hub(&cache.0);
    let refused = error(hub.file(&repo(), "weights.bin"));
    assert!(
        refused.what().contains("was not kept") && refused.got().contains("instead of"),
        "{refused}"
    );
    assert_eq!(server.asked(), [None, None], "once more from the beginning, and then no more");
    assert_eq!(fs::read_dir(cache.join("models--owner--small/blobs")).unwrap().count(), 0);
    assert!(!cache.join("models--owner--small/snapshots").exists());
    assert_the_way_by_hand(&refused, &hub, &repo(), "weights.bin");
}

#[test]
fn a_bad_beginning_is_thrown_away() {
    let (server, cache) = (Server::good(&files()), Folder::new("hub-bad"));
    let sum = hhalign::base::rng::sha256_hex([content().as_slice()], 64);
    cache.write(&format!("models--owner--small/blobs/{sum}.incomplete"), vec![7; 1000]);
    let hub = server.hub(&cache.0);
    assert_eq!(fs::read(hub.file(&repo(), "weights.bin").unwrap()).unwrap(), content());
    assert_eq!(server.asked(), [Some(1000), None]);
}

#[test]
fn a_wrong_length_is_refused_before_the_first_byte() {
    for (name, other) in [("short", SIZE - 1), ("long", SIZE + 1), ("page", 12)] {
        let server =
            server(
                move |_, seen| {
                    if seen.elsewhere { Does::Sends(vec![7; other]) } else { Does::Serves }
                },
            );
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
    assert_eq!(
        fs::read(server.hub(&cache.0).file(&repo(), "weights.bin").unwrap()).unwrap(),
        whole
    );
    assert_eq!(server.asked(), [None, None, Some(70_000), Some(70_000)]);
}

#[test]
fn too_many_requests_are_repeated_when_the_server_says() {
    let busy = || Does::Fails("429 Too Many Requests", vec![("Retry-After", "1".into())]);
    let cache = Folder::new("hub-429");
    let server = server(move |number, _| if number == 0 { busy() } else { Does::Serves });
    let start = Instant::now();
    assert_eq!(
        fs::read(server.hub(&cache.0).file(&repo(), "weights.bin").unwrap()).unwrap(),
        content()
    );
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "it waits as long as it is asked to: {:?}",
        start.elapsed()
    );
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_server_that_never_has_time_is_named_with_the_time_it_asks_for() {
    let limit = ("RateLimit", "\"resolve\";r=0;t=240".to_string());
    let server = server(move |_, _| Does::Fails("429 Too Many Requests", vec![limit.clone()]));
    let cache = Folder::new("hub-429-ever");
    let hub = server.hub(&cache.0);
    let refused = error(hub.file(&repo(), "weights.bin"));
    assert!(
        refused.fix().starts_with("run it again in 240 s") && refused.got().starts_with("429"),
        "{refused}"
    );
    assert_eq!(server.seen().len(), 1, "a long wait is the caller's to decide");
    assert_the_way_by_hand(&refused, &hub, &repo(), "weights.bin");

    let server = self::server(|_, _| {
        Does::Fails("429 Too Many Requests", vec![("Retry-After", "0".into())])
    });
    let refused = error(server.hub(&cache.0).file(&repo(), "config.json"));
    assert!(refused.what().contains("too many requests"), "{refused}");
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    let cache = Folder::new("hub-503");
    let server = server(|number, _| {
        if number < 2 { Does::Fails("503 Service Unavailable", vec![]) } else { Does::Serves }
    });
    server.hub(&cache.0).file(&repo(), "config.json").unwrap();
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn what_the_server_declines_is_said_and_not_asked_again() {
    let code = |code: &'static str| {
        vec![("X-Error-Code", code.to_string()), ("X-Error-Message", format!("no for {TOKEN}"))]
    };
    let cases = [
        ("401 Unauthorized", "RepoNotFound", "without a valid token", "HF_TOKEN"),
        ("403 Forbidden", "GatedRepo", "does not let you have", "ask for access on"),
        ("404 Not Found", "RepoNotFound", "no repository owner/small", "names and revisions"),
        (
            "404 Not Found",
            "RevisionNotFound",
            &format!("no revision {COMMIT}"),
            "names and revisions",
        ),
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
        assert!(
            refused.got().starts_with(status) && !refused.to_string().contains(TOKEN),
            "{refused}"
        );
        assert_eq!(server.seen().len(), 1);
        assert_the_way_by_hand(&refused, &hub, &repo(), "weights.bin");
    }
    let server = Server::good(&files());
    let cache = Folder::new("hub-absent");
    assert!(
        error(server.hub(&cache.0).file(&repo(), "absent.txt"))
            .what()
            .contains("no file absent.txt")
    );
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
        offline.what().contains("HF_HUB_OFFLINE is set")
            && offline.fix().contains("unset HF_HUB_OFFLINE"),
        "{offline}"
    );
    assert_the_way_by_hand(&offline, &hub, &repo(), "config.json");
    let unreachable = error(hub.file(&repo(), "weights.bin"));
    assert!(
        unreachable.what().contains("cannot be reached")
            && unreachable.fix().contains("check the network")
    );
    assert_the_way_by_hand(&unreachable, &hub, &repo(), "weights.bin");
    let main = Repo::model("owner/small");
    assert_the_way_by_hand(&error(hub.file(&main, "more.bin")), &hub, &main, "more.bin");

    for address in ["huggingface.co", "ftp://host", "https://user:pass@host"] {
        let wrong = error(Hub { endpoint: address.into(), ..hub.clone() }.file(&main, "x"));
        assert!(
            wrong.what().contains("address cannot be used") && !wrong.to_string().contains("pass@"),
            "{wrong}"
        );
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
        assert!(
            refused.what().contains("does not say what owner/small/weights.bin is"),
            "{name}: {refused}"
        );
        assert!(
            server.asked().is_empty() && !cache.join("models--owner--small/snapshots").exists()
        );
    }
    let cache = Folder::new("hub-space");
    let server = server(|_, _| Does::Header("X-Linked-Size", (1_u64 << 60).to_string()));
    let full = error(server.hub(&cache.0).file(&repo(), "weights.bin"));
    assert!(full.what().contains("no space for") && full.fix().contains("HF_HUB_CACHE"), "{full}");
    assert!(server.asked().is_empty(), "space is looked at before the first byte");
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
