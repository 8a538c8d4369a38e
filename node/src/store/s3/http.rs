//! The HTTP client under the SDK: HTTP/1.1 only, so that uploads do not share one connection, on rustls with ring.

use std::{path::Path, sync::Arc, time::Duration};

use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::{
    http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector as TcpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{errors::date_s, settings::Patience, time::StoreTime};
use crate::{content, store::backend::Problem};

/// Largest `ca_file` that is read.
const CA_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Servers close idle connections after half a minute or later.
const IDLE: Duration = Duration::from_secs(20);

/// What may wait in the kernel for the network. What is there can't be watched, so it has a limit: at 128 kbit/s it
/// is gone well within the time that an answer may take.
const SEND_BUFFER_BYTES: usize = 512 * 1024;

/// How often TCP asks a peer that has nothing to say whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The client. Cloning it is cheap and shares the connections.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client<HttpsConnector<TcpConnector>, SdkBody>,
    time: StoreTime,
}

impl Http {
    /// Makes the client.
    ///
    /// # Errors
    /// `ca_file` can't be used.
    pub(super) fn new(ca_file: Option<&Path>, patience: Patience, time: StoreTime) -> Result<Self, Problem> {
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(patience.connect));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_tcp_user_timeout(Some(patience.stall));
        tcp.set_send_buffer_size(Some(SEND_BUFFER_BYTES));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(ca_file)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client =
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(https);
        Ok(Self { client, time })
    }
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, Problem> {
    let mut roots = RootCertStore::empty();
    // A machine without system roots may well need none, with `ca_file` or plain HTTP.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let problem =
            |message: String| Problem::new("ca_file", message, "set ca_file to a PEM file of CA certificates");
        let pem = content::read(path, CA_FILE_BYTES_MAX).map_err(|error| problem(error.to_string()))?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let certificates = certificates.map_err(|error| problem(format!("{}: {error}", path.display())))?;
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(problem(format!("there is no certificate in {}", path.display())));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| Problem::new("ca_file", error.to_string(), "report this"))?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

impl HttpClient for Http {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Http {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let (answer, time) = (self.client.request(request), self.time.clone());
        HttpConnectorFuture::new(async move {
            let answer = answer.await.map_err(|error| ConnectorError::io(error.into()))?;
            let answer = HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))?;
            if let Some(date_s) = answer.headers().get("date").and_then(date_s) {
                time.note(date_s);
            }
            Ok(answer)
        })
    }
}
