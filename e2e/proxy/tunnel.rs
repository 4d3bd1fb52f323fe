//! A forward proxy as companies have one: it takes CONNECT, notes where to, and copies bytes both ways.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// A running forward proxy; its tunnels end with it.
pub struct Tunnels {
    address: String,
    opened: Arc<Mutex<Vec<Tunnel>>>,
    _accepting: AbortOnDropHandle<()>,
}

/// What was asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Method and target: `CONNECT host:port`.
    pub asked: String,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<String>,
}

impl Tunnels {
    /// On a free port of 127.0.0.1.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on 127.0.0.1");
        let address = listener.local_addr().expect("a bound listener has an address").to_string();
        let opened: Arc<Mutex<Vec<Tunnel>>> = Arc::default();
        let noting = opened.clone();
        let accepting = tokio::spawn(async move {
            let mut tunnels = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                tunnels.spawn(serve(client, noting.clone()));
            }
        });
        Self { address, opened, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// `127.0.0.1:<port>`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Everything that was asked so far.
    pub fn opened(&self) -> Vec<Tunnel> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(mut client: TcpStream, opened: Arc<Mutex<Vec<Tunnel>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let asked = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let header = |line: &str| {
        line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization")).map(|(_, value)| value.to_owned())
    };
    let authorization = head.lines().find_map(header);
    let target = asked.strip_prefix("CONNECT ").map(str::to_owned);
    opened.lock().unwrap_or_else(PoisonError::into_inner).push(Tunnel { asked, authorization });
    let server = match target {
        Some(target) => TcpStream::connect(target).await.ok(),
        None => None,
    };
    let Some(mut server) = server else {
        let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
        return;
    };
    if client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_ok() {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
