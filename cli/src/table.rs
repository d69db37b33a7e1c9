//! Tables and facts for people. Nothing is cut off: what is shown can be copied.

use crate::human;
use comfy_table::{Table, presets};
use serde_json::Value;

/// A column: its heading, and the field that it shows (`target.name` is one within another), or how it is made of a row.
pub type Column = (&'static str, Cell);

/// What a column shows of a row.
#[derive(Clone, Copy)]
pub enum Cell {
    /// A field.
    Field(&'static str),
    /// Something made of several.
    Made(fn(&Value) -> String),
}

impl Cell {
    /// What it shows of this row.
    pub fn of(self, row: &Value) -> String {
        match self {
            Cell::Field(path) => {
                let found = path.split('.').fold(row, |value, name| &value[name]);
                human::value(path, found)
            }
            Cell::Made(make) => make(row),
        }
    }
}

/// The rows as a table; empty without rows.
pub fn of(columns: &[Column], rows: &[Value]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.iter().map(|(heading, _)| *heading));
    for row in rows {
        table.add_row(columns.iter().map(|(_, cell)| cell.of(row)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Facts about one object, a line each.
pub fn facts(facts: &[(String, String)]) -> String {
    // A little more than the longest usual name, so that objects look alike.
    let width = facts.iter().map(|(name, _)| name.chars().count() + 2).fold(13, usize::max);
    facts.iter().map(|(name, text)| format!("{name:<width$}{text}\n")).collect()
}

/// What is known of an object: these fields first, then the others as they come. An array is a line for each of its values.
pub fn describe(object: &Value, first: &[&str]) -> String {
    let others = object.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    // Many sizes come twice, for people and for programs.
    let is_twice =
        |name: &str| name.strip_suffix("_bytes").is_some_and(|name| !object[format!("{name}_gib")].is_null());
    let others: Vec<&str> = others.filter(|name| !first.contains(name) && !is_twice(name)).collect();
    let mut lines = Vec::new();
    for field in first.iter().chain(&others) {
        let values = match &object[*field] {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        let texts = values.iter().map(|value| human::value(field, value)).filter(|text| !text.is_empty());
        lines.extend(texts.map(|text| (human::name(field), text)));
    }
    facts(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_is_aligned_and_whole() {
        let columns =
            [("NAME", Cell::Field("name")), ("ON", Cell::Field("on.node")), ("END", Cell::Made(|_| "x".into()))];
        let rows = [json!({"name": "a".repeat(70), "on": {"node": "n"}}), json!({"name": "b"})];
        let text = of(&columns, &rows);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], format!("{}  n   x", "a".repeat(70)));
        assert_eq!(lines[0].find("ON"), Some(72));
        assert_eq!(lines[2].len(), 77);
        assert_eq!(of(&columns, &[]), "");
    }

    #[test]
    fn an_object_says_what_it_has() {
        let object = json!({"zone": null, "id": "7", "name": "tiny", "size_bytes": 1024, "all_gib": 1, "all_bytes": 1, "copies": [{"a": 1}, {"a": 2}]});
        let text = describe(&object, &["name", "id"]);
        assert_eq!(
            text,
            "name         tiny\nid           7\nall          1 GiB\ncopies       a 1\ncopies       a 2\nsize         1 KiB\n"
        );
    }
}
