//! What the clients of all providers over HTTP have in common: how one is built, the admin's forward proxies, one request and its whole
//! answer, and how a server says when to come again.

mod client;
mod exchange;

pub use client::Plan;
pub use exchange::{Broken, Exchanged, MAX_BODY, Party, exchange};

use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderName, header};
use jiff::fmt::rfc2822;
use reqwest::{ClientBuilder, NoProxy, Proxy};
use url::Url;

/// The forward proxies of this machine; without any every server is reached directly. Never from a spec: who may set where credentials
/// go through is the admin.
#[derive(Clone, Default)]
pub struct Proxies(Vec<Proxy>);

// By hand: an address may hold a password.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxies({})", self.0.len())
    }
}

/// An address that is none of a proxy. It is not shown: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no address of a proxy such as http://proxy.example.com:3128")]
pub struct NoProxyAddress;

/// Which servers a proxy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Proxies {
    /// Adds the proxy of one scheme. `bypass` lists what is reached directly: hosts with their subdomains, addresses, networks, `*`.
    ///
    /// # Errors
    /// When the address cannot be that of a proxy over HTTP.
    pub fn with(mut self, scheme: Scheme, address: &str, bypass: &str) -> Result<Self, NoProxyAddress> {
        let url = address_of(address)?;
        // The library takes `*` for names only, and addresses as well are meant.
        if bypass.split(',').any(|entry| entry.trim() == "*") {
            return Ok(self);
        }
        let proxy = match scheme {
            Scheme::Http => Proxy::http(url),
            Scheme::Https => Proxy::https(url),
        };
        self.0.push(proxy.map_err(|_| NoProxyAddress)?.no_proxy(NoProxy::from_string(bypass)));
        Ok(self)
    }

    /// Tells a client, which reads nothing of the environment from then on.
    pub fn tell(&self, client: ClientBuilder) -> ClientBuilder {
        self.0.iter().cloned().fold(client.no_proxy(), ClientBuilder::proxy)
    }
}

/// People leave out the scheme.
fn address_of(text: &str) -> Result<Url, NoProxyAddress> {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&text).map_err(|_| NoProxyAddress)?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() { Ok(url) } else { Err(NoProxyAddress) }
}

/// The hint of the header Retry-After: seconds, or a date, which counts from the answer's own date and needs no clock of ours.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    retry_after_text(text(header::RETRY_AFTER), text(header::DATE))
}

/// The same of the two headers' texts.
#[must_use]
pub fn retry_after_text(hint: Option<&str>, date: Option<&str>) -> Option<Duration> {
    let hint = hint?.trim();
    if let Ok(seconds) = hint.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let [then, now] = [rfc2822::parse(hint).ok()?, rfc2822::parse(date?.trim()).ok()?];
    // What has gone by already means now.
    Some(Duration::try_from(now.duration_until(&then)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use http::HeaderMap;
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
    };

    use super::{NoProxyAddress, Proxies, Scheme, retry_after};

    #[test]
    fn a_hint_is_seconds_or_a_date_after_the_answers_own() {
        let date = "Sun, 22 Nov 2026 10:00:00 GMT";
        let cases = [
            (vec![("retry-after", "7")], Some(7)),
            (vec![("retry-after", " 0 ")], Some(0)),
            (vec![("retry-after", "Sun, 22 Nov 2026 10:00:07 GMT"), ("date", date)], Some(7)),
            (vec![("retry-after", "Sun, 22 Nov 2026 09:00:00 GMT"), ("date", date)], Some(0)),
            (vec![("retry-after", "Sun, 22 Nov 2026 10:00:07 GMT")], None),
            (vec![("retry-after", "soon"), ("date", date)], None),
            (vec![("retry-after", "-1")], None),
            (vec![("retry-after", "")], None),
            (vec![("date", date)], None),
        ];
        for (headers, expected) in cases {
            let map: HeaderMap = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            assert_eq!(retry_after(&map), expected.map(Duration::from_secs), "{headers:?}");
        }
    }

    #[test]
    fn an_address_is_that_of_a_proxy_over_http_and_never_shown() {
        for address in ["http://proxy:3128", "https://user:hunter2@proxy.example.com", "proxy.example.com:3128", "127.0.0.1:1"] {
            let proxies = Proxies::default().with(Scheme::Https, address, "").unwrap();
            assert!(!format!("{proxies:?}").contains("hunter2"));
        }
        for address in ["", "socks5://user:hunter2@proxy", "http://", "file:///etc", "a b"] {
            let refused = Proxies::default().with(Scheme::Http, address, "").unwrap_err();
            assert_eq!((refused, refused.to_string().contains("hunter2")), (NoProxyAddress, false), "{address}");
        }
    }

    /// Says its name to whoever asks anything, and remembers the first line of what was asked.
    async fn answering(name: &'static str, asked: Arc<Mutex<Vec<String>>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let mut lines = BufReader::new(tcp).lines();
                let first = lines.next_line().await.unwrap().unwrap();
                while lines.next_line().await.is_ok_and(|line| line.is_some_and(|line| !line.is_empty())) {}
                asked.lock().unwrap().push(first);
                let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                lines.into_inner().into_inner().write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the client is what is tested")]
    async fn a_client_goes_through_the_proxy_of_its_scheme_except_where_told_not_to() {
        let asked = Arc::default();
        let (server, proxy) = (answering("server", Arc::clone(&asked)).await, answering("proxy", Arc::clone(&asked)).await);
        let proxies = |scheme, bypass| Proxies::default().with(scheme, &proxy, bypass).unwrap();
        let cases = [
            (Proxies::default(), "server"),
            (proxies(Scheme::Http, ""), "proxy"),
            (proxies(Scheme::Http, "example.com"), "proxy"),
            (proxies(Scheme::Http, "example.com,127.0.0.1"), "server"),
            (proxies(Scheme::Http, "127.0.0.0/8"), "server"),
            (proxies(Scheme::Http, "*"), "server"),
            (proxies(Scheme::Https, ""), "server"),
        ];
        for (proxies, expected) in cases {
            let client = proxies.tell(reqwest::Client::builder()).build().unwrap();
            let said = client.get(format!("http://{server}/x")).send().await.unwrap().text().await.unwrap();
            assert_eq!(said, expected, "{proxies:?}");
            let first = asked.lock().unwrap().pop().unwrap();
            assert_eq!(first.contains(&server), expected == "proxy", "{first}");
        }
    }
}
