//! The HTTP clients, and one GET with its redirects.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, ClientBuilder, Response};
use tokio::time::timeout;
use url::Url;

use crate::error::{Blame, FetchError, quoted};
use crate::list::{NewMirrorsError, Options};
use crate::plan::is_loopback;
use crate::reach::{LeadsInside, NoNearer, Reach};
use crate::redirect;

/// Idle connections kept to one host; emerge asks for one file after the other.
const IDLE_PER_HOST: usize = 2;
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Header lines in an answer.
const HEADERS_MAX: usize = 64;
/// Bytes of headers in an HTTP/2 answer; HTTP/1 is bounded by hyper's read buffer.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// Within this machine without proxy and with HTTP/1.1 only; elsewhere as the system says. Whom a redirect names is looked
/// up by a client of its own, which finds no address nearer than the one that gave the redirect.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    inside: Client,
    outside: Client,
    off_this_machine: Client,
    off_this_network: Client,
    proxied: bool,
    connect: Duration,
    redirects_max: usize,
}

impl Clients {
    pub(crate) fn new(options: &Options) -> Result<Self, NewMirrorsError> {
        let shared = || {
            Client::builder()
                .user_agent(&options.user_agent)
                .connect_timeout(options.connect)
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .tcp_nodelay(true)
                .pool_max_idle_per_host(IDLE_PER_HOST)
                .pool_idle_timeout(IDLE)
                .http1_max_headers(HEADERS_MAX)
                .http2_max_header_list_size(HEADER_BYTES_MAX)
        };
        Ok(Self {
            inside: built(|| shared().no_proxy().http1_only())?,
            outside: built(shared)?,
            off_this_machine: built(|| shared().dns_resolver(NoNearer(Reach::Network)))?,
            off_this_network: built(|| shared().dns_resolver(NoNearer(Reach::World)))?,
            proxied: options.proxied,
            connect: options.connect,
            redirects_max: options.redirects_max,
        })
    }

    /// One GET, following redirects; every hop has `first_byte` (and the time to connect) until its head is there.
    pub(crate) async fn get(
        &self,
        url: &Url,
        headers: &HeaderMap,
        at: &Blame,
        first_byte: Duration,
    ) -> Result<Response, FetchError> {
        let mut url = url.clone();
        // The first address is the user's or the repository's word; what it resolves to is theirs to know.
        let mut least = Reach::Machine;
        let mut given: Vec<u8> = Vec::new();
        for _ in 0..=self.redirects_max {
            let client = self.client(&url, least);
            let request = client
                .get(url.clone())
                .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
                .headers(headers.clone());
            let waited = self.connect.saturating_add(first_byte);
            let response = match timeout(waited, request.send()).await {
                Ok(Ok(response)) => response,
                Ok(Err(source)) if LeadsInside::is_cause_of(&source) => {
                    return Err(FetchError::RedirectRefused { at: at.clone(), location: quoted(&given) });
                }
                Ok(Err(source)) => return Err(refusal(at, source, waited)),
                Err(_) => return Err(FetchError::Timeout { at: at.clone(), waited }),
            };
            let location = response.headers().get(LOCATION).map(HeaderValue::as_bytes).unwrap_or_default();
            match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => {}
                // Multiple choices: one of them may be preferred (RFC 9110 15.4.1); else this is the file.
                300 if !location.is_empty() => {}
                _ => return Ok(response),
            }
            // The same name too: it may be looked up to another address the next time.
            least = least.max(self.reach(&url, &response));
            url = redirect::next(&url, location, least)
                .ok_or_else(|| FetchError::RedirectRefused { at: at.clone(), location: quoted(location) })?;
            given = location.to_vec();
        }
        Err(FetchError::Redirects { at: at.clone(), limit: self.redirects_max })
    }

    fn client(&self, url: &Url, least: Reach) -> &Client {
        match least {
            _ if is_loopback(url) => &self.inside,
            _ if self.proxied => &self.outside,
            Reach::Machine => &self.outside,
            Reach::Network => &self.off_this_machine,
            Reach::World => &self.off_this_network,
        }
    }

    /// How far out the server is that answered. Unknown counts as far: then it may send us nowhere inside.
    fn reach(&self, url: &Url, response: &Response) -> Reach {
        let connected = || response.remote_addr().filter(|_| !self.proxied).map(|address| Reach::of(address.ip()));
        Reach::spelled(url).or_else(connected).unwrap_or(Reach::World)
    }
}

/// Builds a client; on a machine without root certificates one that can do http alone, which is enough for many mirrors.
fn built(builder: impl Fn() -> ClientBuilder) -> Result<Client, NewMirrorsError> {
    match builder().build() {
        Ok(client) => Ok(client),
        Err(first) => {
            let client = builder().tls_certs_only([]).build().map_err(NewMirrorsError::Client)?;
            tracing::warn!(error = &first as &dyn std::error::Error, "no root certificates, so no https");
            Ok(client)
        }
    }
}

fn refusal(at: &Blame, source: reqwest::Error, waited: Duration) -> FetchError {
    let at = at.clone();
    let source = source.without_url();
    if source.is_connect() {
        FetchError::Connect { at, source: Arc::new(source) }
    } else if source.is_timeout() {
        FetchError::Timeout { at, waited }
    } else {
        FetchError::Garbled { at, source: Arc::new(source) }
    }
}
