//! Sessions of browsers: a cookie in place of a token.

use crate::{Access, Rpc, Time};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Begins a browser's session. The answer sets the cookie `vmyard_session` (HttpOnly, SameSite=Strict), which stands for
/// the token for 12 hours, but never longer than the token itself works. A call with the cookie needs an `Origin` header
/// that names this server, as browsers send it. After 10 wrong tokens within a minute from one address: `rate_limited`.
// Not `Debug`, so that no log has the token.
#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The token's secret.
    #[garde(length(chars, min = 1, max = 255))]
    pub token: String,
}

/// A session that has begun. Its secret is in the cookie alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SignedIn {
    /// The token's name.
    pub name: String,
    /// What the session may do: what its token may.
    pub role: Access,
    /// When the session ends by itself.
    pub expires_at: Time,
}

impl Rpc for SignIn {
    const NAME: &'static str = "sign-in";
    const ACCESS: Access = Access::Anyone;
    type Reply = SignedIn;
}

/// Ends the browser's session that the call is made in, and takes its cookie back. `wrong_state` for a call with a
/// bearer token, which has no session.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct SignOut {}

/// A session that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SignedOut {
    /// The name of the token that it was begun with, which still works.
    pub name: String,
}

impl Rpc for SignOut {
    const NAME: &'static str = "sign-out";
    const ACCESS: Access = Access::Viewer;
    type Reply = SignedOut;
}
