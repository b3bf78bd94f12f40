//! The loopback server as a stranger meets it: raw requests over a socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use hhalign::live::{Pausable, Phase, Run};
use hhalign::train::{Sft, TrainConfig};

use super::{data, folder, model, until};
use crate::child;
use crate::common::short;

/// A long run and the address of its page.
fn page(seed: u64) -> (Run, u16, String) {
    folder();
    let (pairs, held_out) = data();
    let sft = Sft { train: TrainConfig { seed, log_every: 5, ..short(1_000_000) } };
    let run = sft.start(&model(), &pairs, &held_out).unwrap();
    let view = run.live().unwrap();
    let address =
        view.text().split("live page: http://127.0.0.1:").nth(1).expect("an address").trim();
    let (port, path) = address.split_once('/').unwrap();
    (run, port.parse().unwrap(), format!("/{path}"))
}

/// Sends a request as it stands and returns the status and what follows the headers.
fn send(port: u16, request: &str) -> (u16, String) {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer);
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_string()))
}

fn get(port: u16, path: &str, headers: &str) -> (u16, String) {
    send(
        port,
        &format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{headers}\r\n"
        ),
    )
}

fn post(port: u16, path: &str, headers: &str) -> (u16, String) {
    let host = format!("Host: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: 0\r\n");
    send(port, &format!("POST {path} HTTP/1.1\r\n{host}{headers}\r\n"))
}

#[test]
fn strangers_are_refused_and_the_page_may_pause_and_stop() {
    let (run, port, path) = page(1);
    until("the run trains", || run.phase() == Phase::Training);
    assert_eq!(get(port, &path, "").0, 200);
    assert!(get(port, &path, "").1.contains("<html"));
    // No token, another token, a path outside, a path upwards.
    let without = path.splitn(3, '/').nth(2).unwrap();
    assert_eq!(get(port, &format!("/{without}"), "").0, 403);
    assert_eq!(get(port, &format!("/{}/{without}", "0".repeat(32)), "").0, 403);
    assert_eq!(get(port, "/", "").0, 403);
    for outside in
        ["no-such-thing", "../../../Cargo.toml", "%2e%2e/Cargo.toml", "state/state", "runs"]
    {
        assert_eq!(get(port, &format!("{path}{outside}"), "").0, 404, "{outside}");
    }
    // Another site's page, a sandboxed page, and a name that was made to point here.
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1"] {
        assert_eq!(
            get(port, &format!("{path}state"), &format!("Origin: {origin}\r\n")).0,
            403,
            "{origin}"
        );
        assert_eq!(
            post(port, &format!("{path}pause"), &format!("Origin: {origin}\r\n")).0,
            403,
            "{origin}"
        );
    }
    let rebound =
        format!("GET {path} HTTP/1.1\r\nHost: evil.example:{port}\r\nConnection: close\r\n\r\n");
    assert_eq!(send(port, &rebound).0, 403);
    assert_eq!(
        send(
            port,
            &format!(
                "DELETE {path}stop HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
            )
        )
        .0,
        405
    );
    let long = format!(
        "POST {path}pause HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: 70000\r\n\r\n{}",
        "x".repeat(70_000)
    );
    assert_eq!(send(port, &long).0, 413);
    assert_eq!(run.phase(), Phase::Training, "nothing of that may have reached the run");

    // Its own page may.
    let own = format!("Origin: http://127.0.0.1:{port}\r\n");
    assert_eq!(get(port, &format!("{path}pause"), &own).0, 404, "reading changes nothing");
    assert!(post(port, &format!("{path}pause"), &own).1.contains("\"phase\":\"paused\""));
    assert_eq!(run.phase(), Phase::Paused);
    post(port, &format!("{path}resume"), &own);
    assert_eq!(run.phase(), Phase::Training);
    assert_eq!(post(port, &format!("{path}stop"), &own).0, 200);
    run.finish().unwrap();
    assert_eq!(run.phase(), Phase::Stopped);
}

#[test]
fn a_slow_or_broken_off_request_holds_nobody_up_and_does_nothing() {
    let (run, port, path) = page(4);
    let head = format!(
        "POST {path}pause HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 5000\r\n\r\nabc"
    );
    let mut slow = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    slow.write_all(head.as_bytes()).unwrap();
    let begin = std::time::Instant::now();
    assert_eq!(get(port, &format!("{path}alive.svg"), "").0, 200);
    // Behind the slow request it would wait until the time-out of `send`.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    drop(slow);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(run.phase(), Phase::Training, "a request that was cut off is not carried out");
    run.stop();
    run.finish().unwrap();
}

#[test]
fn it_listens_on_the_loopback_address_only() {
    let (run, port, _) = page(2);
    let listening = std::fs::read_to_string("/proc/net/tcp").unwrap()
        + &std::fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    let hex = format!(":{port:04X}");
    let here: Vec<&str> = listening
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1).filter(|_| line.contains(" 0A ")))
        .filter(|local| local.ends_with(&hex))
        .collect();
    assert_eq!(here, [format!("0100007F{hex}")]);
    for interface in ["0.0.0.0", "127.0.0.2"] {
        let other: SocketAddr = format!("{interface}:{port}").parse().unwrap();
        if interface != "0.0.0.0" {
            assert!(TcpStream::connect_timeout(&other, Duration::from_millis(300)).is_err());
        }
    }
    run.stop();
    run.finish().unwrap();
}

#[test]
fn events_bring_new_records_as_they_come_and_end_with_the_run() {
    let (run, port, path) = page(3);
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
        .write_all(
            format!(
                "GET {path}events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
            )
            .as_bytes(),
        )
        .unwrap();
    let mut events: Vec<serde_json::Value> = vec![];
    for line in BufReader::new(socket).lines() {
        let line = line.expect("events until the run ends");
        if let Some(event) = line.strip_prefix("data: ") {
            events.push(serde_json::from_str(event).unwrap());
        }
        if events.len() == 3 {
            run.stop();
        }
    }
    run.finish().unwrap();
    assert!(events.len() >= 3, "{} events", events.len());
    // A client replaces its records from `from` on: in the end it has the history.
    let mut records: Vec<serde_json::Value> = vec![];
    for event in &events {
        records.truncate(event["from"].as_u64().unwrap() as usize);
        records.extend(event["records"].as_array().unwrap().iter().cloned());
    }
    let history = run.history();
    assert_eq!(records.len(), history.records.len());
    assert_eq!(records.last().unwrap()["step"], history.records.last().unwrap().step);
    assert_eq!(events.last().unwrap()["phase"], "stopped");
}

/// The server reads its variables once in a process, so this test runs itself again in one where
/// they are set.
#[test]
fn behind_a_proxy_its_public_address_is_the_one_given() {
    let base = "https://hub.example/user/ann/proxy/{port}";
    let test = "live::server::behind_a_proxy_its_public_address_is_the_one_given";
    if !child::is_child(test) {
        return print!("{}", child::run(test, &[("HHALIGN_LIVE_BASE", base)]));
    }
    folder();
    let (pairs, held_out) = data();
    let sft = Sft { train: TrainConfig { seed: 5, ..short(2) } };
    let run = sft.start(&model(), &pairs, &held_out).unwrap();
    let view = run.live().unwrap();
    let (_, rest) = view
        .text()
        .split_once("live page: https://hub.example/user/ann/proxy/")
        .expect("the public address");
    let (port, path) = rest.trim().split_once('/').unwrap();
    let port: u16 = port.parse().unwrap();
    // A proxy takes its own part of the path away; it may keep the browser's Host and Origin, or
    // put in this server's.
    for host in
        ["hub.example".to_string(), format!("127.0.0.1:{port}"), format!("localhost:{port}")]
    {
        let request = |origin: &str| {
            format!(
                "POST /{path}pause HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
        };
        assert_eq!(send(port, &request("https://hub.example")).0, 200, "{host}");
        assert_eq!(send(port, &request("https://hub.example.evil.example")).0, 403, "{host}");
        assert_eq!(send(port, &request("http://hub.example")).0, 403, "{host}");
    }
    run.resume();
    run.finish().unwrap();
}
