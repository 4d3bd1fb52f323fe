//! Where the store of a tenant may lead. Whoever may write a `SecretStore` must not reach what only the operator can: its own host, the
//! cloud's metadata, the API server. A `ClusterSecretStore` is an admin's and may.
//!
//! Addresses are judged when a connection is made, because a name may lead elsewhere by then. A literal address is resolved by nobody and
//! judged at once. With a proxy, which is the admin's, a name is resolved behind it and only a literal address can be judged.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use reqwest::{
    ClientBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
};
use url::{Host, Url};

use crate::{fault::Fault, name::StoreName};

/// What the admin said about addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// What stores of tenants may reach all the same (`tenantEndpoints`).
    pub tenants: Vec<Endpoint>,
    /// Hosts of this cluster's API server, by name or address.
    pub api_servers: Vec<String>,
}

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: Host,
    port: u16,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no endpoint: write HOST:PORT, such as vault.tools.svc:8200 or [::1]:8200");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        Ok(Self { host: Host::parse(host).map_err(|_| wrong())?, port })
    }
}

/// A store may not lead to this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SecretStore may not lead to an address of the operator's own host, of the link, of cloud metadata or of the API server")]
pub struct Forbidden;

impl Forbidden {
    /// As a fault of what was wanted.
    #[must_use]
    pub fn fault(self, subject: &str) -> Fault {
        Fault::not_allowed(format!("{subject}: {self}: name another server, or ask the admin to list its host and port in tenantEndpoints"))
    }
}

/// Judges the connections of one store to one server.
#[derive(Clone, Debug)]
pub struct Guard {
    host: String,
    port: u16,
    endpoints: Arc<Endpoints>,
}

impl Guard {
    /// The guard of a tenant's store; none for an admin's, and none where the admin listed exactly this host and port.
    ///
    /// # Errors
    /// [`Forbidden`] for a literal address that is refused.
    pub fn of(store: &StoreName, server: &Url, endpoints: &Endpoints) -> Result<Option<Self>, Forbidden> {
        let (Some(host), Some(port)) = (server.host(), server.port_or_known_default()) else { return Err(Forbidden) };
        let is_listed = endpoints.tenants.contains(&Endpoint { host: host.to_owned(), port });
        if matches!(store, StoreName::Cluster { .. }) || is_listed {
            return Ok(None);
        }
        let guard = Self { host: host.to_string(), port, endpoints: Arc::new(endpoints.clone()) };
        match host {
            Host::Ipv4(address) => guard.judge_literal(address.into())?,
            Host::Ipv6(address) => guard.judge_literal(address.into())?,
            Host::Domain(_) => {}
        }
        Ok(Some(guard))
    }

    /// The addresses of a name, all of which may be connected to.
    ///
    /// # Errors
    /// [`Forbidden`] as the inner error when one of them is refused; else what kept the name from being resolved.
    pub async fn resolve(&self, name: &str) -> std::io::Result<Vec<SocketAddr>> {
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name, self.port)).await?.collect();
        // Another name than the store's is that of a proxy.
        if !name.trim_end_matches('.').eq_ignore_ascii_case(self.host.trim_end_matches('.')) {
            return Ok(addresses);
        }
        let of_api_server = self.api_servers().await;
        if addresses.iter().any(|address| self.is_forbidden(address.ip(), &of_api_server)) {
            return Err(std::io::Error::other(Forbidden));
        }
        Ok(addresses)
    }

    /// A literal address has no second chance: names of the API server that would have to be resolved are left to the network.
    fn judge_literal(&self, address: IpAddr) -> Result<(), Forbidden> {
        let known: Vec<IpAddr> = self.endpoints.api_servers.iter().filter_map(|host| host.trim_matches(['[', ']']).parse().ok()).collect();
        if self.is_forbidden(address, &known) { Err(Forbidden) } else { Ok(()) }
    }

    async fn api_servers(&self) -> Vec<IpAddr> {
        let mut known = Vec::new();
        for host in &self.endpoints.api_servers {
            if let Ok(addresses) = tokio::net::lookup_host((host.trim_matches(['[', ']']), 443)).await {
                known.extend(addresses.map(|address| address.ip()));
            }
        }
        known
    }

    fn is_forbidden(&self, address: IpAddr, of_api_server: &[IpAddr]) -> bool {
        let host = match address {
            IpAddr::V4(address) => Host::Ipv4(address),
            IpAddr::V6(address) => Host::Ipv6(address),
        };
        let is_listed = self.endpoints.tenants.contains(&Endpoint { host, port: self.port });
        let inner = unwrapped(address);
        !is_listed && (is_special(inner) || of_api_server.iter().any(|known| unwrapped(*known) == inner))
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let addresses = Guard::resolve(&guard, name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// A client that connects only where the store may lead.
///
/// # Errors
/// [`Forbidden`] for a literal address that is refused.
pub fn guarded(builder: ClientBuilder, store: &StoreName, server: &Url, endpoints: &Endpoints) -> Result<ClientBuilder, Forbidden> {
    Ok(match Guard::of(store, server, endpoints)? {
        Some(guard) => builder.dns_resolver(Arc::new(guard)),
        None => builder,
    })
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, translated (NAT64), 6to4.
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(outer) = address else { return address };
    let octets = outer.octets();
    let inner = |at: usize| IpAddr::V4(Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]));
    match octets {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..] | [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, ..] => inner(12),
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ..] if outer != Ipv6Addr::LOCALHOST && outer != Ipv6Addr::UNSPECIFIED => inner(12),
        [0x20, 0x02, ..] => inner(2),
        _ => address,
    }
}

/// The host itself, the link, many hosts at once, and where clouds tell secrets to whoever asks.
fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            const METADATA: [Ipv4Addr; 3] =
                [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
            address.is_loopback()
                || address.octets()[0] == 0
                || address.is_link_local()
                || address.is_multicast()
                || address.is_broadcast()
                || METADATA.contains(&address)
        }
        IpAddr::V6(address) => {
            let is_metadata = address.segments()[..2] == [0xfd00, 0x0ec2];
            address.is_loopback() || address.is_unspecified() || address.is_unicast_link_local() || address.is_multicast() || is_metadata
        }
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::{Endpoint, Endpoints, Forbidden, Guard};
    use crate::name::StoreName;

    fn tenant() -> StoreName {
        StoreName::Namespaced { namespace: "team".into(), name: "own".into() }
    }

    fn endpoints(tenants: &[&str], api_servers: &[&str]) -> Endpoints {
        Endpoints {
            tenants: tenants.iter().map(|text| text.parse().unwrap()).collect(),
            api_servers: api_servers.iter().map(|host| (*host).to_owned()).collect(),
        }
    }

    fn judged(server: &str, endpoints: &Endpoints) -> Result<bool, Forbidden> {
        Guard::of(&tenant(), &Url::parse(server).unwrap(), endpoints).map(|guard| guard.is_some())
    }

    #[test]
    fn a_literal_address_in_any_spelling_is_judged_before_anything_is_sent() {
        let endpoints = endpoints(&[], &["10.96.0.1", "[fd12::1]"]);
        let refused = [
            "127.0.0.1",
            "127.8.9.1",
            "0x7f.1",
            "2130706433",
            "017700000001",
            "0.0.0.0",
            "0",
            "169.254.169.254",
            "169.254.170.23",
            "0xA9FEA9FE",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "224.0.0.1",
            "255.255.255.255",
            "10.96.0.1",
            "[::1]",
            "[::]",
            "[fe80::1]",
            "[ff02::1]",
            "[fd00:ec2::254]",
            "[fd00:ec2::23]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[::ffff:10.96.0.1]",
            "[fd12::1]",
        ];
        for address in refused {
            for server in [format!("http://{address}:8200"), format!("https://{address}")] {
                assert_eq!(judged(&server, &endpoints), Err(Forbidden), "{server}");
            }
        }
        for address in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "100.100.100.201", "[2001:db8::1]", "[fd00::1]", "[::ffff:10.0.0.1]"] {
            assert_eq!(judged(&format!("https://{address}:8200"), &endpoints), Ok(true), "{address}");
        }
    }

    #[test]
    fn exactly_the_host_and_port_that_the_admin_lists_are_free() {
        let endpoints = endpoints(&["127.0.0.1:8200", "[::1]:443", "Vault.Tools.svc:8200"], &[]);
        for server in ["https://127.0.0.1:8200", "https://[::1]", "https://[::1]:443", "https://vault.tools.svc:8200"] {
            assert_eq!(judged(server, &endpoints), Ok(false), "{server}");
        }
        for server in ["https://127.0.0.1:8201", "https://127.0.0.1", "https://127.0.0.2:8200", "http://[::1]"] {
            assert_eq!(judged(server, &endpoints), Err(Forbidden), "{server}");
        }
        assert_eq!(judged("https://vault.tools.svc:8201", &endpoints), Ok(true));
    }

    #[test]
    fn an_admins_store_may_lead_anywhere() {
        let (store, server) = (StoreName::Cluster { name: "shared".into() }, Url::parse("https://127.0.0.1:8200").unwrap());
        assert!(Guard::of(&store, &server, &Endpoints::default()).unwrap().is_none());
    }

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for text in ["", "vault", "vault:", "vault:0", "vault:65536", ":8200", "::1:8200", "https://vault:8200", "a b:1", "vault:8200/x"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
        for text in ["vault.tools.svc:8200", "10.0.0.1:1", "[::1]:65535"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[tokio::test]
    async fn a_name_is_judged_by_where_it_leads_when_a_connection_is_made() {
        let server = Url::parse("https://localhost:8200").unwrap();
        let guard = |endpoints: &Endpoints| Guard::of(&tenant(), &server, endpoints).unwrap().unwrap();
        let is_refused = |result: std::io::Result<Vec<std::net::SocketAddr>>| match result {
            Err(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<Forbidden>()).is_some(),
            Ok(_) => false,
        };
        let strict = guard(&endpoints(&[], &[]));
        for name in ["localhost", "LOCALHOST"] {
            assert!(is_refused(strict.resolve(name).await), "{name}");
        }
        // What the admin lists by address is free by name, too.
        assert!(guard(&endpoints(&["127.0.0.1:8200", "[::1]:8200"], &[])).resolve("localhost").await.is_ok());
        // The name of a proxy is the admin's.
        let elsewhere = Guard::of(&tenant(), &Url::parse("https://vault.example.com").unwrap(), &endpoints(&[], &[])).unwrap().unwrap();
        assert!(elsewhere.resolve("localhost").await.is_ok());
    }

    #[tokio::test]
    async fn a_name_of_the_api_server_is_refused_under_every_other_name() {
        // An address of a documentation network: it is refused as the API server's and for nothing else.
        let guard = |api: &[&str]| Guard::of(&tenant(), &Url::parse("https://192.0.2.7:8200").unwrap(), &endpoints(&[], api));
        assert_eq!(guard(&["192.0.2.7"]).err(), Some(Forbidden));
        assert!(guard(&["192.0.2.8"]).is_ok());
    }
}
