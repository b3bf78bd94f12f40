//! A server on the loopback address in the hub's shape: it answers well, breaks off, lies, or
//! declines.
//!
//! Large files are sent on to a second port, as the hub sends them on to another host.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hhalign::base::hub::Hub;
use hhalign::base::rng::sha256_hex;
use sha1::{Digest, Sha1};

pub const COMMIT: &str = "1111111111111111111111111111111111111111";
pub const TOKEN: &str = "hf_very_secret_0123456789";

/// What the server saw of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub method: String,
    pub path: String,
    /// From which byte on.
    pub from: Option<u64>,
    pub token: bool,
    /// Whether it came to the second port.
    pub elsewhere: bool,
}

/// What the server does with a request.
pub enum Does {
    /// What the hub would do.
    Serves,
    /// Sends so many bytes of the body and breaks off.
    Cuts(usize),
    /// Sends these bytes in place of the file's, with their own length.
    Sends(Vec<u8>),
    /// Sends these bytes and does not say how many they are.
    Unmeasured(Vec<u8>),
    /// Sends so many bytes and then nothing, without closing.
    Stalls(usize),
    /// Ignores that only a part was asked for.
    Whole,
    Fails(&'static str, Headers),
    /// What the hub would do, with one header in place of its own.
    Header(&'static str, String),
}

type Headers = Vec<(&'static str, String)>;

type Plan = dyn Fn(usize, &Seen) -> Does + Send + Sync;

struct Shared {
    files: HashMap<String, Vec<u8>>,
    large: Vec<String>,
    ports: [u16; 2],
    seen: Mutex<Vec<Seen>>,
    plan: Box<Plan>,
}

pub struct Server(Arc<Shared>);

impl Server {
    /// A server of files by `REPO/PATH` (`datasets/OWNER/NAME/...` for data); those named `*.gz`,
    /// `*.bin` and `*.safetensors` are large ones. What it does depends on the request's number,
    /// from 0, and on the request.
    pub fn new(
        files: &[(&str, Vec<u8>)],
        plan: impl Fn(usize, &Seen) -> Does + Send + Sync + 'static,
    ) -> Self {
        let listeners = [0, 1].map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let files: HashMap<String, Vec<u8>> =
            files.iter().map(|(name, bytes)| (name.to_string(), bytes.clone())).collect();
        let is_large =
            |name: &&String| [".gz", ".bin", ".safetensors"].iter().any(|end| name.ends_with(end));
        let shared = Arc::new(Shared {
            large: files.keys().filter(is_large).cloned().collect(),
            files,
            ports: [0, 1].map(|i: usize| listeners[i].local_addr().unwrap().port()),
            seen: Mutex::default(),
            plan: Box::new(plan),
        });
        for (i, listener) in listeners.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                for socket in listener.incoming() {
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || shared.serve(socket.unwrap(), i == 1));
                }
            });
        }
        Self(shared)
    }

    /// A server that does what the hub would do.
    pub fn good(files: &[(&str, Vec<u8>)]) -> Self {
        Self::new(files, |_, _| Does::Serves)
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.0.ports[0])
    }

    /// A hub that asks this server, keeps files in a folder, and loses no time.
    pub fn hub(&self, cache: &Path) -> Hub {
        Hub {
            endpoint: self.endpoint(),
            first_wait: Duration::from_millis(5),
            patience: Duration::from_millis(1500),
            progress: false,
            retries: 2,
            ..Hub::new(cache)
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.0.seen.lock().unwrap().clone()
    }

    /// The requests for bytes: from which one on.
    pub fn asked(&self) -> Vec<Option<u64>> {
        let last = |seen: &Seen| {
            seen.method == "GET" && (seen.elsewhere || !self.0.large.iter().any(|f| seen.is_for(f)))
        };
        self.seen().iter().filter(|seen| last(seen)).map(|seen| seen.from).collect()
    }
}

impl Seen {
    fn is_for(&self, file: &str) -> bool {
        self.path.ends_with(file.rsplit('/').next().unwrap())
    }
}

/// The name that git gives to a content.
pub fn git_name(bytes: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", bytes.len()));
    hash.update(bytes);
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

impl Shared {
    fn serve(&self, mut socket: TcpStream, elsewhere: bool) {
        let (mut request, mut buffer) = (vec![], [0; 4096]);
        while !request.ends_with(b"\r\n\r\n") {
            match socket.read(&mut buffer) {
                Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
                _ => return,
            }
        }
        let request = String::from_utf8(request).unwrap();
        let mut words = request.split_whitespace();
        let header = |name: &str| {
            let line = request
                .lines()
                .find(|line| line.to_lowercase().starts_with(&format!("{name}:")))?;
            Some(line.split_once(':')?.1.trim().to_string())
        };
        assert_eq!(header("accept-encoding").as_deref(), Some("identity"), "{request}");
        let seen = Seen {
            method: words.next().unwrap().into(),
            path: words.next().unwrap().into(),
            from: header("range").map(|r| {
                r.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap()
            }),
            token: header("authorization")
                .inspect(|value| assert_eq!(value, &format!("Bearer {TOKEN}")))
                .is_some(),
            elsewhere,
        };
        let number = {
            let mut all = self.seen.lock().unwrap();
            all.push(seen.clone());
            all.len() - 1
        };
        self.answer(&mut socket, &seen, (self.plan)(number, &seen));
    }

    /// The file that an address means: `/REPO/resolve/REVISION/PATH`.
    fn file(&self, path: &str) -> Option<(&str, &[u8])> {
        let (repo, rest) = path.strip_prefix('/')?.split_once("/resolve/")?;
        let name = format!("{repo}/{}", rest.split_once('/')?.1);
        self.files.get_key_value(&name).map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// What the hub would answer.
    fn reply(&self, seen: &Seen, whole: bool) -> (&'static str, Headers, Vec<u8>) {
        let Some((name, bytes)) = self.file(&seen.path) else {
            return (
                "404 Not Found",
                vec![("X-Error-Code", "EntryNotFound".into()), ("Content-Length", "0".into())],
                vec![],
            );
        };
        let mut headers = vec![("X-Repo-Commit", COMMIT.to_string())];
        let large = self.large.iter().any(|large| large == name);
        if large && !seen.elsewhere {
            headers.push(("ETag", "\"of-the-redirect\"".into()));
            headers.push(("X-Linked-ETag", format!("\"{}\"", sha256_hex([bytes], 64))));
            headers.push(("X-Linked-Size", bytes.len().to_string()));
            headers.push(("Location", format!("http://127.0.0.1:{}{}", self.ports[1], seen.path)));
            headers.push(("Content-Length", "0".into()));
            return ("302 Found", headers, vec![]);
        }
        if !large {
            headers.push(("ETag", format!("\"{}\"", git_name(bytes))));
        }
        let from = seen.from.filter(|_| !whole);
        if let Some(from) = from {
            headers.push((
                "Content-Range",
                format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
            ));
        }
        let body = bytes[from.unwrap_or(0) as usize..].to_vec();
        headers.push(("Content-Length", body.len().to_string()));
        (if from.is_some() { "206 Partial Content" } else { "200 OK" }, headers, body)
    }

    fn answer(&self, socket: &mut TcpStream, seen: &Seen, does: Does) {
        let (mut status, mut headers, mut body) = self.reply(seen, matches!(does, Does::Whole));
        let replace = |headers: &mut Headers, name: &'static str, value: String| {
            headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
            headers.push((name, value));
        };
        let stalls = matches!(does, Does::Stalls(_));
        match does {
            Does::Serves | Does::Whole => {}
            Does::Cuts(bytes) | Does::Stalls(bytes) => body.truncate(bytes),
            Does::Sends(other) => {
                replace(&mut headers, "Content-Length", other.len().to_string());
                body = other;
            }
            Does::Unmeasured(other) => {
                headers.retain(|(name, _)| *name != "Content-Length");
                body = other;
            }
            Does::Header(name, value) => replace(&mut headers, name, value),
            Does::Fails(other, more) => {
                (status, headers, body) = (other, more, vec![]);
                replace(&mut headers, "Content-Length", "0".into());
            }
        }
        let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
        headers.iter().for_each(|(name, value)| write!(head, "{name}: {value}\r\n").unwrap());
        if seen.method == "HEAD" {
            body.clear();
        }
        // The other side may have hung up, which is its right.
        let _ = socket
            .write_all(format!("{head}\r\n").as_bytes())
            .and_then(|()| socket.write_all(&body));
        let _ = socket.flush();
        if stalls {
            std::thread::sleep(Duration::from_secs(4));
        }
    }
}
