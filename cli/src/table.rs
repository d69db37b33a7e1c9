//! Tables for people.

use comfy_table::{Table, presets};

/// An empty table with these headings and no lines.
pub fn new(headings: impl Iterator<Item = &'static str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headings);
    table
}
