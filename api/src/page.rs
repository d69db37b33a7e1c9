//! Pages of a list.

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The size of a page when the caller doesn't say.
pub const LIMIT_DEFAULT: u32 = 100;
/// The largest page.
pub const LIMIT_MAX: u32 = 1000;

/// Which page of a list is wanted. Every list request has these two fields; this struct is how the server passes them on.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
pub struct Page {
    /// At most so many rows (100 when absent, 1000 at most).
    #[garde(inner(range(min = 1, max = 1000)))]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[garde(inner(length(min = 1, max = 8192)))]
    #[schemars(length(min = 1, max = 8192))]
    pub cursor: Option<String>,
}

impl Page {
    /// The page's size in rows.
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX) as usize
    }
}
