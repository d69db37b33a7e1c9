//! Pages of lists that are in memory.

use crate::{Error, Result};
use api::Page;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

/// The rows of a page, the cursor of the next one, and how many rows there are on all pages.
pub struct Cut<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// The cursor of the next page.
    pub next_cursor: Option<String>,
    /// How many rows there are on all pages.
    pub total: u64,
}

/// Cuts a page out of rows that are in the order of their keys. The cursor is the key of the last row, so that rows
/// which come and go between two calls neither repeat nor hide others.
pub fn cut<T>(rows: Vec<T>, page: &Page, key: impl Fn(&T) -> String) -> Result<Cut<T>> {
    let total = rows.len() as u64;
    let after = page.cursor.as_deref().map(read_cursor).transpose()?;
    let mut rows: Vec<T> =
        rows.into_iter().filter(|row| after.as_ref().is_none_or(|after| key(row) > *after)).collect();
    let more = rows.len() > page.limit();
    rows.truncate(page.limit());
    let next_cursor = rows.last().filter(|_| more).map(|row| write_cursor(&key(row)));
    Ok(Cut { rows, next_cursor, total })
}

/// A cursor that a client takes as it is.
pub fn write_cursor(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

/// What [`write_cursor`] was given.
pub fn read_cursor(cursor: &str) -> Result<String> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(foreign_cursor)
}

/// The id in a cursor, for lists that are in the order of their ids.
pub fn read_id_cursor(page: &Page) -> Result<Option<Uuid>> {
    let Some(cursor) = page.cursor.as_deref() else { return Ok(None) };
    read_cursor(cursor)?.parse().map(Some).map_err(|_| foreign_cursor())
}

/// A cursor that can't be one of ours.
pub fn foreign_cursor() -> Error {
    Error::field("cursor", "is not one that this method gave; begin again without it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(limit: u32, cursor: Option<String>) -> Page {
        Page { limit: Some(limit), cursor }
    }

    #[test]
    fn pages_cover_everything_once() {
        let rows: Vec<String> = (0..25).map(|n| format!("{n:02}")).collect();
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let cut = cut(rows.clone(), &page(10, cursor), Clone::clone).unwrap();
            assert_eq!(cut.total, 25);
            seen.extend(cut.rows);
            cursor = cut.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, rows);
        assert!(cut(rows, &page(10, Some("%%%".into())), Clone::clone).is_err());
    }
}
