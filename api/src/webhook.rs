//! Webhooks: events that are sent to somebody.

use crate::{Access, Rpc, Time, event::EventKind, rules};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Who is sent events, and how that goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Webhook {
    /// Its id.
    pub id: Uuid,
    /// Its name, unique without case.
    pub name: String,
    /// Where events are sent.
    pub url: String,
    /// Only events of these kinds are; all when empty.
    pub kinds: Vec<EventKind>,
    /// Only events about the VM of this id or name.
    pub vm: Option<String>,
    /// Only events on the node of this name.
    pub node: Option<String>,
    /// When it was made.
    pub created_at: Time,
    /// Events up to this id have been sent, or given up.
    pub sent_up_to: u64,
    /// How many events could never be sent, since they were not kept for long enough.
    pub lost: u64,
    /// The last delivery.
    pub last_delivery: Option<Delivery>,
}

/// How an event was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Delivery {
    /// The event's id.
    pub event: u64,
    /// What it is.
    pub kind: EventKind,
    /// How far it is.
    pub state: DeliveryState,
    /// How often it was tried.
    pub attempts: u32,
    /// The HTTP status of the last answer; null where there was none.
    pub status: Option<u16>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// How long the last attempt took, in milliseconds.
    pub took_ms: u64,
    /// When it was tried for the first time.
    pub first_at: Time,
    /// When it was tried for the last time.
    pub last_at: Time,
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// The receiver has taken it (2xx).
    Delivered,
    /// It is tried again, with growing pauses; those after it wait.
    Retrying,
    /// It was tried for 24 hours, and is not tried any more.
    GivenUp,
}

impl DeliveryState {
    /// The state as it is on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Delivered => "delivered",
            DeliveryState::Retrying => "retrying",
            DeliveryState::GivenUp => "given_up",
        }
    }

    /// Reads what [`DeliveryState::as_str`] wrote.
    pub fn parse(text: &str) -> Option<DeliveryState> {
        [DeliveryState::Delivered, DeliveryState::Retrying, DeliveryState::GivenUp]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// Has events sent to a URL from now on, each as JSON by POST, in their order, at least once each, signed as Standard Webhooks
/// says (<https://www.standardwebhooks.com>). Tells the secret of the signature this one time.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct CreateWebhook {
    /// Its name.
    #[garde(custom(rules::name))]
    #[schemars(regex(pattern = rules::NAME_PATTERN))]
    pub name: String,
    /// Where events are sent: `https://…`, or `http://…` in a network that you trust. Redirects are not followed.
    #[garde(length(min = 1, max = 2048))]
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// Only events of these kinds; all when absent.
    #[garde(length(max = 100))]
    #[schemars(length(max = 100))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<EventKind>,
    /// Only events about this VM: its id, or its name at the time.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub vm: Option<String>,
    /// Only events on the node of this name.
    #[garde(custom(rules::optional_reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub node: Option<String>,
}

/// A new webhook with its secret.
// Not `Debug`, so that no log has it.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CreatedWebhook {
    /// The webhook.
    #[serde(flatten)]
    pub record: Webhook,
    /// What the receiver needs to check signatures (`whsec_…`). Asked for again (describe-task, or the same call under its
    /// client_token), it is given for 10 minutes, to the same caller only; then it is null.
    pub secret: Option<String>,
    /// True when the secret is not given any more.
    #[serde(default)]
    pub secret_expired: bool,
}

impl Rpc for CreateWebhook {
    const NAME: &'static str = "create-webhook";
    const ACCESS: Access = Access::Administrator;
    const SECRETS: &'static [&'static str] = &["secret"];
    type Reply = CreatedWebhook;
}

/// Lists the webhooks, by name.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ListWebhooks {
    /// At most so many rows (100 when absent).
    #[garde(inner(range(min = 1, max = 1000)))]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    #[schemars(length(min = 1, max = 8192))]
    pub cursor: Option<String>,
}

/// A page of webhooks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Webhooks {
    /// The webhooks.
    pub webhooks: Vec<Webhook>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
    /// How many there are on all pages.
    pub total: u64,
}

impl Rpc for ListWebhooks {
    const NAME: &'static str = "list-webhooks";
    const ACCESS: Access = Access::Administrator;
    type Reply = Webhooks;
}

/// Tells of a webhook, with its last 100 deliveries.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DescribeWebhook {
    /// The webhook, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub webhook: String,
}

/// What describe-webhook answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DescribedWebhook {
    /// The webhook.
    #[serde(flatten)]
    pub record: Webhook,
    /// Its deliveries, the newest first.
    pub deliveries: Vec<Delivery>,
}

impl Rpc for DescribeWebhook {
    const NAME: &'static str = "describe-webhook";
    const ACCESS: Access = Access::Administrator;
    type Reply = DescribedWebhook;
}

/// Deletes a webhook, with the history of its deliveries. Nothing is sent any more.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct DeleteWebhook {
    /// The webhook, by name or id.
    #[garde(custom(rules::reference))]
    #[schemars(regex(pattern = rules::REFERENCE_PATTERN))]
    pub webhook: String,
}

/// What delete-webhook answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeletedWebhook {
    /// The id of the webhook that is gone.
    pub id: Uuid,
    /// Its name, which is free again.
    pub name: String,
}

impl Rpc for DeleteWebhook {
    const NAME: &'static str = "delete-webhook";
    const ACCESS: Access = Access::Administrator;
    type Reply = DeletedWebhook;
}
