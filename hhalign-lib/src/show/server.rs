//! A small web server on the loopback address, for pages inside a notebook's output.
//!
//! It listens on 127.0.0.1 only and ends with the process. Every address contains a random token. A
//! request without the token, from another site, or for an unpublished page is refused.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rand::Rng as _;
use tiny_http::{Header, Method, Request, Response};

use crate::base::error::{Error, Result};

/// The environment variable with the server's public address behind a proxy, such as
/// `https://hub.example/user/ann/proxy/{port}`.
pub const BASE_VARIABLE: &str = "HHALIGN_LIVE_BASE";
/// The environment variable with a fixed port, for a tunnel; without it any free port is taken.
pub const PORT_VARIABLE: &str = "HHALIGN_LIVE_PORT";

/// A page's answer to a request.
pub enum Reply {
    /// A document with its content type.
    Document(&'static str, String),
    /// Server-sent events: each call waits for the next event; `None` ends the stream.
    Events(Box<dyn FnMut() -> Option<String> + Send>),
    /// No such name.
    NotFound,
    /// A bad request, with the reason.
    Bad(String),
}

/// A page published under its own address.
pub trait Page: Send + Sync {
    /// Answers a GET request for `name` below the page's address (empty for the page itself), with
    /// its query.
    fn get(&self, name: &str, query: &str) -> Reply;
    /// Answers a POST request for `name`.
    fn post(&self, name: &str, body: &str) -> Reply;
}

/// The largest request body, in bytes.
const MAX_BODY: u64 = 64 * 1024;

struct Server {
    port: u16,
    token: String,
    base: Option<String>,
    pages: Mutex<BTreeMap<String, Arc<dyn Page>>>,
}

/// Publishes a page as `kind/name/` and returns its address, which ends with a slash. The first
/// page starts the server.
///
/// # Errors
/// No free port, or an invalid value of [`PORT_VARIABLE`] or [`BASE_VARIABLE`].
pub fn publish(kind: &str, name: &str, page: Arc<dyn Page>) -> Result<String> {
    let server = server()?;
    let path = format!("{kind}/{name}");
    server.pages.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), page);
    let base = server.base.clone().unwrap_or_else(|| format!("http://127.0.0.1:{}", server.port));
    Ok(format!("{base}/{}/{path}/", server.token))
}

fn server() -> Result<&'static Arc<Server>> {
    static SERVER: OnceLock<Result<Arc<Server>>> = OnceLock::new();
    SERVER.get_or_init(start).as_ref().map_err(Error::clone)
}

fn start() -> Result<Arc<Server>> {
    let port: u16 = match std::env::var(PORT_VARIABLE).ok().filter(|p| !p.is_empty()) {
        Some(text) => text.parse().map_err(|_| {
            Error::new(
                format!("{PORT_VARIABLE} is not a port"),
                text,
                "give a number from 1024 to 65535, or leave it out",
            )
        })?,
        None => 0,
    };
    let no_port = |e: std::io::Error| {
        Error::network(
            "the live page found no port to listen on",
            e.to_string(),
            format!("set {PORT_VARIABLE} to a free port"),
        )
        .caused_by(e)
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(no_port)?;
    let port = listener.local_addr().map_err(no_port)?.port();
    let base = std::env::var(BASE_VARIABLE).ok().filter(|b| !b.is_empty());
    if let Some(base) =
        base.as_ref().filter(|b| !b.starts_with("http://") && !b.starts_with("https://"))
    {
        let fix = "give an address such as https://hub.example/user/ann/proxy/{port}";
        return Err(Error::new(format!("{BASE_VARIABLE} is not a web address"), base, fix));
    }
    let base =
        base.map(|b| b.replace("{port}", &port.to_string()).trim_end_matches('/').to_string());
    let token: String = (0..16).map(|_| format!("{:02x}", rand::rng().random::<u8>())).collect();
    let http = tiny_http::Server::from_listener(listener, None).map_err(|e| {
        Error::network("the live page's server does not start", e.to_string(), "").caused_by(e)
    })?;
    let server = Arc::new(Server { port, token, base, pages: Mutex::default() });
    let serving = Arc::clone(&server);
    std::thread::Builder::new()
        .name("hhalign server".into())
        .spawn(move || {
            crate::base::parallel::silence_panics();
            for request in http.incoming_requests() {
                // A body may arrive slowly, or never; it must not delay other requests.
                if *request.method() == Method::Post {
                    let serving = Arc::clone(&serving);
                    let _ =
                        std::thread::Builder::new().name("hhalign post".into()).spawn(move || {
                            crate::base::parallel::silence_panics();
                            serving.serve(request);
                        });
                } else {
                    serving.serve(request);
                }
            }
        })
        .map_err(|e| {
            Error::not_ready("no thread could be started for the live page", e.to_string(), "")
                .caused_by(e)
        })?;
    Ok(server)
}

impl Server {
    fn serve(self: &Arc<Self>, mut request: Request) {
        let reply = match self.page_of(&request) {
            Err(status) => return respond(request, status, "text/plain", "refused\n".into()),
            Ok((page, name, query)) => match request.method() {
                Method::Get => page.get(&name, &query),
                Method::Post => {
                    let mut body = String::new();
                    let read = request.as_reader().take(MAX_BODY + 1).read_to_string(&mut body);
                    if read.is_err() || body.len() as u64 > MAX_BODY {
                        return respond(
                            request,
                            413,
                            "text/plain",
                            "the request is too long\n".into(),
                        );
                    }
                    if request.body_length().is_some_and(|length| length != body.len()) {
                        return respond(
                            request,
                            400,
                            "text/plain",
                            "the request was cut off\n".into(),
                        );
                    }
                    page.post(&name, &body)
                }
                _ => return respond(request, 405, "text/plain", "GET and POST only\n".into()),
            },
        };
        match reply {
            Reply::Document(kind, text) => respond(request, 200, kind, text),
            Reply::NotFound => respond(request, 404, "text/plain", "not found\n".into()),
            Reply::Bad(why) => {
                respond(
                    request,
                    400,
                    "application/json",
                    serde_json::json!({ "error": why }).to_string(),
                );
            }
            Reply::Events(next) => {
                // The stream stays open while the page is shown, so it has its own thread.
                let _ = std::thread::Builder::new()
                    .name("hhalign events".into())
                    .spawn(move || stream(request, next));
            }
        }
    }

    /// Returns the page of a request, the name below it and the query, or the status code of a
    /// refusal.
    fn page_of(
        &self,
        request: &Request,
    ) -> std::result::Result<(Arc<dyn Page>, String, String), u16> {
        let header = |name: &str| {
            let found = request
                .headers()
                .iter()
                .find(|h| h.field.as_str().as_str().eq_ignore_ascii_case(name));
            found.map(|h| h.value.as_str().to_string())
        };
        let own =
            [format!("http://127.0.0.1:{}", self.port), format!("http://localhost:{}", self.port)];
        let origins: Vec<&str> =
            own.iter().map(String::as_str).chain(self.base.as_deref().map(origin)).collect();
        // An unknown host name is a sign of DNS rebinding: another site's name that points to this
        // address.
        let host = header("Host").unwrap_or_default();
        if !origins.iter().any(|o| o.split("://").nth(1) == Some(&host)) {
            return Err(403);
        }
        if header("Origin").is_some_and(|from| !origins.contains(&from.as_str())) {
            return Err(403);
        }
        let (path, query) = request.url().split_once('?').unwrap_or((request.url(), ""));
        let rest = path
            .strip_prefix('/')
            .and_then(|p| p.strip_prefix(&self.token)?.strip_prefix('/'))
            .ok_or(403u16)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [kind, page, name] = parts[..] else { return Err(404) };
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let page = pages.get(&format!("{kind}/{page}")).ok_or(404u16)?;
        Ok((Arc::clone(page), name.to_string(), query.to_string()))
    }
}

/// Returns scheme, host and port of an address.
fn origin(address: &str) -> &str {
    let host = address.find("://").map_or(0, |i| i + 3);
    &address[..address[host..].find('/').map_or(address.len(), |i| host + i)]
}

/// The headers of every answer: no caching, no type guessing, no referrer, and a page may connect
/// to this server only.
const HEADERS: [(&str, &str); 4] = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
         img-src data:; connect-src 'self'",
    ),
];

fn respond(request: Request, status: u16, kind: &str, text: String) {
    let length = text.len();
    let content_type = [("Content-Type", kind)];
    let headers = HEADERS
        .iter()
        .chain(&content_type)
        .filter_map(|(n, v)| Header::from_bytes(*n, *v).ok())
        .collect();
    // If the client is gone, there is nobody to report an error to.
    let _ = request.respond(Response::new(
        status.into(),
        headers,
        Cursor::new(text),
        Some(length),
        None,
    ));
}

fn stream(request: Request, mut next: Box<dyn FnMut() -> Option<String> + Send>) {
    crate::base::parallel::silence_panics();
    let mut out = request.into_writer();
    let headers: String = HEADERS.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
         Transfer-Encoding: chunked\r\n{headers}\r\n"
    );
    let mut send = |text: &str| out.write_all(text.as_bytes()).and_then(|()| out.flush());
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    if send(&head).is_err() {
        return;
    }
    while let Some(event) = next() {
        // An empty event becomes a comment, which detects a closed connection.
        let text =
            if event.is_empty() { ": still here\n\n".into() } else { format!("data: {event}\n\n") };
        if send(&chunk(&text)).is_err() {
            return;
        }
    }
    let _ = send(&chunk(""));
}
