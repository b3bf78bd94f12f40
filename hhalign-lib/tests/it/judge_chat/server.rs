//! Servers on the loopback address that stand for a chat model's: they answer well, badly, late or
//! not at all.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hhalign::eval::preferences::judge::chat::{ApiKey, ChatConfig, ChatJudge};
use serde_json::{Value, json};
use tiny_http::{Header, Response, StatusCode};

pub const KEY: &str = "sk-very-secret-0123456789";

/// What a server saw of a request.
#[derive(Clone)]
pub struct Seen {
    pub path: String,
    pub authorization: Option<String>,
    pub body: Value,
}

impl Seen {
    pub fn message(&self) -> &str {
        self.body["messages"][0]["content"].as_str().unwrap()
    }

    /// What stands between the marks of a part, as a model that minds the code reads it.
    pub fn part(&self, name: &str) -> &str {
        let code =
            self.message().split("with the code ").nth(1).unwrap().split('.').next().unwrap();
        let (_, rest) = self.message().split_once(&format!("[{code} {name} begins]\n")).unwrap();
        rest.split_once(&format!("\n[{code} {name} ends]")).unwrap().0
    }
}

/// What a server does.
pub enum Does {
    Says(&'static str),
    Json(Value),
    Fails(u16, &'static str, Vec<(&'static str, String)>),
    Waits(Duration),
}

pub struct Server {
    pub port: u16,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// A server whose answer depends on the request's number, from 0, and on the request.
    pub fn new(does: impl Fn(usize, &Seen) -> Does + Send + Sync + 'static) -> Self {
        let http = tiny_http::Server::http((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = http.server_addr().to_ip().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (all, does) = (Arc::clone(&seen), Arc::new(does));
        std::thread::spawn(move || {
            for mut request in http.incoming_requests() {
                let mut body = String::new();
                request.as_reader().read_to_string(&mut body).unwrap();
                let header = request.headers().iter().find(|h| h.field.equiv("Authorization"));
                let this = Seen {
                    path: request.url().into(),
                    authorization: header.map(|h| h.value.to_string()),
                    body: serde_json::from_str(&body).unwrap(),
                };
                let number = {
                    let mut all = all.lock().unwrap();
                    all.push(this.clone());
                    all.len() - 1
                };
                let does = Arc::clone(&does);
                std::thread::spawn(move || {
                    let (status, text, headers) = match does(number, &this) {
                        Does::Says(word) => (200, completion(word).to_string(), vec![]),
                        Does::Json(value) => (200, value.to_string(), vec![]),
                        Does::Fails(status, text, headers) => (status, text.into(), headers),
                        Does::Waits(time) => {
                            std::thread::sleep(time);
                            (200, completion("A").to_string(), vec![])
                        }
                    };
                    let mut response =
                        Response::from_string(text).with_status_code(StatusCode(status));
                    for (name, value) in headers {
                        response.add_header(Header::from_bytes(name, value).unwrap());
                    }
                    let _ = request.respond(response);
                });
            }
        });
        Self { port, seen }
    }

    pub fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub fn config(&self) -> ChatConfig {
        config(self.port)
    }

    pub fn judge(&self) -> ChatJudge {
        ChatJudge::new(self.config()).unwrap()
    }
}

pub fn config(port: u16) -> ChatConfig {
    ChatConfig {
        url: format!("http://127.0.0.1:{port}/v1"),
        model: "judge-1".into(),
        key: Some(ApiKey::new(KEY)),
        timeout: Duration::from_secs(10),
        first_wait: Duration::from_millis(20),
        retries: 2,
        ..ChatConfig::default()
    }
}

/// The form of OpenAI's reference, as llama.cpp, vLLM and Ollama send it too.
pub fn completion(word: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "judge-1-2025-01-01",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": word }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 300, "completion_tokens": 2, "total_tokens": 302 },
    })
}

/// A server that answers one connection after another with raw bytes, and closes each.
pub fn raw(answers: Vec<Vec<u8>>, pause: Duration) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut socket, _) = listener.accept().unwrap();
            let (mut request, mut buffer) = (vec![], [0; 4096]);
            // The body ends with the object that the message stands in; a greeting of TLS begins
            // with its own byte.
            while !request.ends_with(b"}") && request.first() != Some(&0x16) {
                let read = socket.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
            }
            for half in answer.chunks(answer.len().div_ceil(2)) {
                let _ = socket.write_all(half);
                let _ = socket.flush();
                std::thread::sleep(pause);
            }
        }
    });
    port
}
