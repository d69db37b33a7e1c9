//! Sending events to webhooks: one after the other, each until it is taken, or for a day.
//!
//! A message is what Standard Webhooks 1.0 says (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>):
//! its id is the same at each attempt, so that a receiver can tell one that it has had.

use crate::{
    App, Error, Result,
    store::{WebhookRecord, WebhookSecret},
};
use api::{
    Time,
    event::Event,
    webhook::{Delivery, DeliveryState},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{header, redirect};
use sha2::Sha256;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Deliveries kept of each webhook.
pub const KEPT: i64 = 100;
/// How long a receiver may take to answer.
const ANSWER: Duration = Duration::from_secs(15);
/// The pauses between two attempts: the first one and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// How long an event is tried, in milliseconds.
const TRIED_MS: i64 = 24 * 3600 * 1000;
/// How often it is written down that there was nothing for a webhook.
const NOTE: Duration = Duration::from_secs(60);
/// The pause when the database can't be read.
const AWAY: Duration = Duration::from_secs(5);
/// What a secret begins with.
const PREFIX: &str = "whsec_";

/// A new secret.
pub fn new_secret() -> Result<WebhookSecret> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Error::Internal(format!("no random bytes: {error}")))?;
    Ok(WebhookSecret(format!("{PREFIX}{}", STANDARD.encode(bytes))))
}

/// The address of a webhook; what is wrong with it otherwise.
pub fn address(url: &str) -> std::result::Result<reqwest::Url, String> {
    let parsed = reqwest::Url::parse(url).map_err(|error| format!("is no URL: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err("must begin with https:// or http:// and name a host".to_owned());
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("must have no password in it: the signature proves that an event is ours".to_owned());
    }
    Ok(parsed)
}

/// Begins to send events to all webhooks that there are.
pub async fn begin(app: &App) -> Result<()> {
    for webhook in app.store.webhooks().await? {
        tokio::spawn(send_for_ever(app.clone(), webhook.id));
    }
    Ok(())
}

/// Sends events to a webhook until it is deleted.
pub async fn send_for_ever(app: App, id: Uuid) {
    let mut sender = Sender { app, id, seen: 0, noted: Instant::now() };
    loop {
        match sender.send_next().await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, webhook = %sender.id, "events for a webhook can't be read or noted now");
                tokio::time::sleep(AWAY).await;
            }
        }
    }
}

struct Sender {
    app: App,
    id: Uuid,
    /// There is nothing for it up to this event.
    seen: i64,
    /// When that was last written down.
    noted: Instant,
}

impl Sender {
    /// Waits for the next event and sends it. Returns whether the webhook is still there.
    async fn send_next(&mut self) -> Result<bool> {
        let store = &self.app.store;
        // Before the look: what comes after it wakes.
        let mut news = store.follow_events();
        let Some(webhook) = store.webhook(&self.id.to_string()).await? else { return Ok(false) };
        let range = store.event_range().await?;
        let after = webhook.after.max(self.seen);
        if let Some(next) = range.gap_after(after) {
            let lost = (next - after).max(0);
            tracing::warn!(webhook = webhook.name, lost, "events for a webhook were not kept for long enough");
            store.webhook_goes_on(self.id, next, lost).await?;
            self.seen = 0;
            return Ok(true);
        }
        let found = store.events_after(&webhook.filter(), after, range.last, 1).await?;
        let Some(event) = found.first() else {
            self.seen = range.last;
            // Not at each event; but it must not be older than what is kept when the server is started again.
            if self.noted.elapsed() >= NOTE {
                store.webhook_goes_on(self.id, self.seen, 0).await?;
                self.noted = Instant::now();
            }
            return match tokio::time::timeout(NOTE, news.changed()).await {
                // Nobody tells events any more: the server goes down.
                Ok(changed) => Ok(changed.is_ok()),
                Err(_) => Ok(true),
            };
        };
        self.send(&webhook, event).await
    }

    /// Sends an event until it is taken or given up. Returns whether the webhook is still there.
    async fn send(&self, webhook: &WebhookRecord, event: &Event) -> Result<bool> {
        let store = &self.app.store;
        let before = store.deliveries(self.id, 1).await?.into_iter().find(|delivery| delivery.event == event.id);
        let (mut attempts, first_at) =
            before.map_or((0, Time::now()), |delivery| (delivery.attempts, delivery.first_at));
        loop {
            let (begun, answer) = (Instant::now(), post(webhook, event).await);
            attempts += 1;
            let now = Time::now();
            let (status, error) = match answer {
                Ok(status @ 200..=299) => (Some(status), None),
                Ok(status) => (Some(status), Some(format!("it has answered {status}"))),
                Err(error) => (None, Some(error)),
            };
            let state = match &error {
                None => DeliveryState::Delivered,
                Some(_) if now.0 - first_at.0 > TRIED_MS => DeliveryState::GivenUp,
                Some(_) => DeliveryState::Retrying,
            };
            if state != DeliveryState::Delivered {
                let error = error.as_deref();
                tracing::warn!(
                    webhook = webhook.name,
                    event = event.id,
                    attempts,
                    error,
                    state = state.as_str(),
                    "an event was not taken"
                );
            }
            let delivery = Delivery {
                event: event.id,
                kind: event.kind,
                state,
                attempts,
                status,
                error,
                took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                first_at,
                last_at: now,
            };
            let is_there = store.note_delivery(self.id, &delivery, KEPT).await?;
            if !is_there || state != DeliveryState::Retrying {
                return Ok(is_there);
            }
            if !self.is_there_after(pause(attempts)).await? {
                return Ok(false);
            }
        }
    }

    /// Waits; returns at once when the webhook is deleted meanwhile.
    async fn is_there_after(&self, pause: Duration) -> Result<bool> {
        let ends = tokio::time::Instant::now() + pause;
        let mut news = self.app.store.follow_events();
        loop {
            if self.app.store.webhook(&self.id.to_string()).await?.is_none() {
                return Ok(false);
            }
            // Its deletion is told as well.
            match tokio::time::timeout_at(ends, news.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(false),
                Err(_) => return Ok(true),
            }
        }
    }
}

/// The pause after so many attempts.
fn pause(attempts: u32) -> Duration {
    let (first, longest) = PAUSES;
    first.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1))).min(longest)
}

/// Sends an event once. Returns the HTTP status.
async fn post(webhook: &WebhookRecord, event: &Event) -> std::result::Result<u16, String> {
    let url = address(&webhook.url)?;
    let body = serde_json::to_string(event).map_err(|error| error.to_string())?;
    let (id, at_s) = (format!("evt_{}_{}", webhook.id.simple(), event.id), Time::now().0 / 1000);
    let signature = sign(&webhook.secret, &id, at_s, &body).ok_or("its secret can't be read")?;
    let client = crate::http::client(&url).timeout(ANSWER).redirect(redirect::Policy::none()).build().map_err(told)?;
    let sent = client
        .post(url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("Vmyard/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", id)
        .header("webhook-timestamp", at_s)
        .header("webhook-signature", signature)
        .body(body)
        .send();
    // What it says beside the status is of no interest.
    sent.await.map(|response| response.status().as_u16()).map_err(told)
}

/// An error with its causes, without the address, which may have a secret in it.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The signature of a message.
fn sign(secret: &WebhookSecret, id: &str, at_s: i64, body: &str) -> Option<String> {
    let key = STANDARD.decode(secret.0.strip_prefix(PREFIX)?).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{at_s}.{body}").as_bytes());
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        // The example of the libraries of Standard Webhooks.
        let secret = WebhookSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let signed = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
        assert!(!format!("{secret:?}").contains("MfKQ"));
    }

    #[test]
    fn pauses_grow() {
        assert_eq!([1, 2, 3, 11, 99].map(|attempts| pause(attempts).as_secs()), [1, 2, 4, 600, 600]);
    }

    #[test]
    fn addresses() {
        for good in ["https://a.example/x?y=z", "http://127.0.0.1:9000", "http://[::1]:1/"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in ["", "junk", "ftp://a/", "file:///etc/passwd", "http://", "https://u:p@a/", "https://u@a/"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
