//! Calls to other servers.

use reqwest::{ClientBuilder, Url};

/// A client for one address; never by a proxy that the environment names.
pub fn client(url: &Url) -> ClientBuilder {
    let builder = ClientBuilder::new().no_proxy();
    // Without TLS no certificates are looked for: a machine may have none.
    if url.scheme() == "https" { builder } else { builder.tls_certs_only([]) }
}
