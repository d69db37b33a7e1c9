//! What only browsers send: the session's cookie (RFC 6265), and the origin of the page that calls (RFC 6454).

use crate::{Error, Result, app::Reached, ops::session::Change};
use axum::http::{HeaderMap, header};

/// The cookie with the session's secret.
pub(super) const COOKIE: &str = "vmyard_session";

/// The session's secret, if a cookie has one.
pub(super) fn session(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, secret)| secret)
}

/// Where a call comes from, by what its browser says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// From a page of this server.
    Ours {
        /// Whether the browser reached it by HTTPS.
        https: bool,
    },
    /// Nothing is said.
    Unknown,
}

/// Finds where a call comes from; a page of somebody else is an error.
pub(super) fn page(headers: &HeaderMap) -> Result<Page> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(Page::Unknown) };
    let origin = origin.to_str().unwrap_or_default();
    // The scheme is the browser's: a proxy before this server may speak HTTPS for it.
    let (https, of) = match origin.split_once("://") {
        Some(("https", of)) => (true, of),
        Some(("http", of)) => (false, of),
        _ => (false, ""),
    };
    match !of.is_empty() && of.eq_ignore_ascii_case(host(headers)) {
        true => Ok(Page::Ours { https }),
        false => Err(Error::ForeignOrigin { origin: Some(origin.to_owned()), host: host(headers).to_owned() }),
    }
}

/// Makes sure that a call with a session's cookie is made by a page of this server: the browser would send the cookie along
/// with a call of a page of another server on the same host, too.
pub(super) fn must_be_ours(headers: &HeaderMap) -> Result<()> {
    match page(headers)? {
        Page::Ours { .. } => Ok(()),
        Page::Unknown => Err(Error::ForeignOrigin { origin: None, host: host(headers).to_owned() }),
    }
}

/// How the caller reached this server.
pub(super) fn reached(headers: &HeaderMap) -> Reached {
    let by_page = matches!(page(headers), Ok(Page::Ours { https: true }));
    // A proxy that ends TLS says so. Whoever lies here gets a URL that doesn't work.
    let by_proxy = headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes() == b"https");
    let host = host(headers);
    // It goes into a URL.
    let fits = host.len() <= 255 && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b));
    Reached { host: if fits { host.to_owned() } else { String::new() }, https: by_page || by_proxy }
}

fn host(headers: &HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The `Set-Cookie` header. `https` keeps the cookie off connections in the clear.
pub(super) fn set_cookie(change: &Change, https: bool) -> String {
    let (secret, lasts_s) = match change {
        Change::Begun { secret, lasts_s } => (secret.as_str(), *lasts_s),
        Change::Ended => ("", 0),
    };
    let secure = if https { "; Secure" } else { "" };
    format!("{COOKIE}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={lasts_s}{secure}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn headers(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn cookies() {
        let of = |lines: &[&'static str]| {
            let lines: Vec<_> = lines.iter().map(|line| (header::COOKIE, *line)).collect();
            session(&headers(&lines)).map(str::to_owned)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["a=b; vmyard_session=s=="]), Some("s==".to_owned()));
        assert_eq!(of(&["a=b", "vmyard_session=s"]), Some("s".to_owned()));
        assert_eq!(of(&["xvmyard_session=s; vmyard_session; vmyard_sessio=n"]), None);
    }

    #[test]
    fn origins() {
        let of = |origin, host| page(&headers(&[(header::ORIGIN, origin), (header::HOST, host)]));
        for (origin, host) in [("http://vm.example:7777", "vm.example:7777"), ("http://[::1]:1", "[::1]:1")] {
            assert_eq!(of(origin, host).unwrap(), Page::Ours { https: false });
        }
        assert_eq!(of("https://VM.example", "vm.example").unwrap(), Page::Ours { https: true });
        for (origin, host) in [
            ("http://vm.example:7778", "vm.example:7777"),
            ("http://vm.example", "vm.example:7777"),
            ("http://evil.example", "vm.example"),
            ("http://vm.example.evil.example", "vm.example"),
            ("http://vm.example/", "vm.example"),
            ("ftp://vm.example", "vm.example"),
            ("vm.example", "vm.example"),
            ("null", "vm.example"),
            ("http://", ""),
            ("", ""),
        ] {
            assert!(of(origin, host).is_err(), "{origin} on {host}");
        }
        assert!(must_be_ours(&headers(&[(header::HOST, "vm.example")])).is_err());
    }

    #[test]
    fn the_cookie_is_kept_from_scripts_and_other_sites() {
        let begun = set_cookie(&Change::Begun { secret: "s".into(), lasts_s: 60 }, true);
        assert_eq!(begun, "vmyard_session=s; Path=/; HttpOnly; SameSite=Strict; Max-Age=60; Secure");
        assert_eq!(set_cookie(&Change::Ended, false), "vmyard_session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    }
}
