//! The way of the vendor's library to the network: our client, one exchange at a time.

use std::{fmt, sync::Arc};

use aws_smithy_runtime_api::{
    client::{
        http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;

use crate::backend::transport::{Broken, exchange};

/// A client that the library calls. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connector(Arc<reqwest::Client>);

impl Connector {
    pub fn new(client: reqwest::Client) -> Self {
        Self(Arc::new(client))
    }
}

// By hand: nothing of it is worth showing.
impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpClient for Connector {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move { send(&client, request).await })
    }
}

async fn send(client: &reqwest::Client, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let unusable = || ConnectorError::user("the request cannot be sent".into());
    let request = request.try_into_http1x().map_err(|_| unusable())?;
    // Requests of these services are never streams.
    let request = request.map(|body| reqwest::Body::from(body.bytes().map(Bytes::copy_from_slice).unwrap_or_default()));
    let request = reqwest::Request::try_from(request).map_err(|_| unusable())?;
    let exchanged = exchange(client, request).await.map_err(connector_error)?;
    let status = StatusCode::try_from(exchanged.status.as_u16()).map_err(|_| connector_error(Broken::Lost))?;
    // It stays in a buffer that is overwritten when it is dropped.
    let mut response = HttpResponse::new(status, SdkBody::from(Bytes::from_owner(exchanged.body)));
    for (name, value) in &exchanged.headers {
        if let Ok(value) = value.to_str() {
            response.headers_mut().append(name.as_str().to_owned(), value.to_owned());
        }
    }
    Ok(response)
}

fn connector_error(broken: Broken) -> ConnectorError {
    match broken {
        Broken::TimedOut => ConnectorError::timeout(Box::new(broken)),
        other => ConnectorError::io(Box::new(other)),
    }
}
